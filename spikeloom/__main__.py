"""`python -m spikeloom VERB …`: the command line."""

from spikeloom.pipelines.cli import main

main()
