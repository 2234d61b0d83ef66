"""The demonstration: from packaged media to a report, by the same jobs that users run."""
