"""Sound: clips, windows, log-mel spectrograms, and manifests of labelled clips."""
