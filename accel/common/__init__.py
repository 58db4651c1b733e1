"""What every package needs and none owns: whole files, and the one HTML report."""
