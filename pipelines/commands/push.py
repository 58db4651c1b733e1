"""`spikeloom push`: a trained model, its card and its configuration to the Hugging Face Hub."""

import logging

from spikeloom.pipelines.api.hub import push
from spikeloom.pipelines.config.push import PushConfig
from spikeloom.pipelines.training.runtime import set_up

log = logging.getLogger("spikeloom")


def run(config: PushConfig) -> None:
    set_up()
    commit = push(
        config.run, config.repo, license=config.license, revision=config.revision, private=config.private,
        message=config.message,
    )  # fmt: skip
    log.info("-> hf://%s@%s", config.repo, commit[:12])
