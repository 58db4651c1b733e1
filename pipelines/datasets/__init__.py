"""`spikeloom data` by kind of data set: check, describe, convert."""
