"""The functions that `import spikeloom` offers; each is imported when it is first used."""
