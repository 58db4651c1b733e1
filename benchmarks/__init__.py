"""What `spikeloom bench` can measure, one file each. Ratios within one run are what to quote."""
