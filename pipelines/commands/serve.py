"""`spikeloom serve`: a page on this machine for keywords, tests of decoded text and the cost of networks."""

from spikeloom.pipelines.config.serve import ServeConfig
from spikeloom.pipelines.training.runtime import set_up


def run(config: ServeConfig) -> None:
    set_up(threads=1)  # requests share the cores
    from spikeloom.pipelines.serving.page import serve

    serve(config)
