"""The inner ear: sound to spike trains of 700 units, by basilar membrane, hair cells, afferents and bushy cells."""
