"""Results that cost much, kept on the disk by what they were computed from: statistics, features, fits, samples."""
