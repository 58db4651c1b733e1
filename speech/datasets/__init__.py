"""Spoken words as labelled clips: FSDD, Speech Commands, SHD, SSC, synthetic keywords."""
