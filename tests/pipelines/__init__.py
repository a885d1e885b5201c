"""Fake pipelines, one vice a file, chosen as SDE_PIPELINE=tests.pipelines.slow:load."""
