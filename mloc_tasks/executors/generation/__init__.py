"""What all text-generating executors share: from rows to prompts, what the spec says about sampling, and items."""
