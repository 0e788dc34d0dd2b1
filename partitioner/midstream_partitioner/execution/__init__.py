"""Running a chain of segments, and what crosses a cut."""
