"""From openapi/ to generated/: bundles, models, routes, and the checks that keep them honest."""
