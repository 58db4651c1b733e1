"""From a picture or recording to what a network takes: frames, augmentation, mixing."""
