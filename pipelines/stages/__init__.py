"""The stages of a run, in order: ancestor, distillation, sizes."""
