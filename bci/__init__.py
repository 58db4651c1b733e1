"""EEG of reading, from recordings to text: data, models, and the tests of whether a decoder uses the EEG."""
