"""Keys of `spikeloom compare`."""

from dataclasses import dataclass, field


@dataclass
class CompareConfig:
    runs: list[str] = field(default_factory=list)  # run directories: `spikeloom compare RUN RUN …`, or runs=[RUN,RUN]
    out: str = "comparison.html"  # the page
