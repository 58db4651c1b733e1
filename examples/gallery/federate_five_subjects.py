"""One EEG encoder trained by five workers, each with the trials of one reader that never leave it (synthetic EEG).

Two rounds are too few to learn much: chance is 3.1 %. Bytes, time and energy of a round are those of any length.
"""

from spikeloom.pipelines.cli import main

main(["federate", "task=trials", "split=speakers", "workers=5", "rounds=2", "compare_iid=false", "out=federate"])
