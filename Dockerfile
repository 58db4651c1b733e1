# spikeloom on a CPU: docker build -t spikeloom . && docker run --rm -v "$PWD:/work" spikeloom listen run=builtin:fsdd wav=x.wav
FROM python:3.12-slim AS build
COPY . /source
RUN pip wheel --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
# The C++ compiler builds the kernels of neurons on first use; libsndfile comes with the wheel of soundfile.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu /wheels/*.whl && rm -rf /wheels
RUN useradd --create-home spikeloom
USER spikeloom
# The kernel of neurons, compiled once for all containers; its functions are chosen by the processor that runs them.
RUN python -c "import torch; from spikeloom.accel.spiking.kernels.loader import library; library(torch.float32)"
WORKDIR /work
ENV SPIKELOOM_DATA=/data
ENTRYPOINT ["spikeloom"]
CMD ["--help"]
