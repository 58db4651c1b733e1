"""Keys of `spikeloom serve`."""

from dataclasses import dataclass


@dataclass
class ServeConfig:
    run: str = "builtin:fsdd"  # causal speech model that listens: a run directory, builtin:NAME or hf://OWNER/NAME
    port: int = 7860  # of 127.0.0.1: the page is for this machine alone
    max_mb: int = 20  # largest file that may be uploaded
    max_s: float = 60.0  # longest recording, in seconds
    inbrowser: bool = False  # open the page in the default browser
