"""The flow of metaflow_steps.py: a start, eight steps, an end."""

from __future__ import annotations

from metaflow import FlowSpec, step


class TenSteps(FlowSpec):
    """Each step adds one to what the step before it gave."""

    @step
    def start(self):  # noqa: ANN201 -- metaflow reads the signature
        """The first of ten."""
        self.value = 1
        self.next(self.second)

    @step
    def second(self):  # noqa: ANN201
        """One small step."""
        self.value += 1
        self.next(self.third)

    @step
    def third(self):  # noqa: ANN201
        """One small step."""
        self.value += 1
        self.next(self.fourth)

    @step
    def fourth(self):  # noqa: ANN201
        """One small step."""
        self.value += 1
        self.next(self.fifth)

    @step
    def fifth(self):  # noqa: ANN201
        """One small step."""
        self.value += 1
        self.next(self.sixth)

    @step
    def sixth(self):  # noqa: ANN201
        """One small step."""
        self.value += 1
        self.next(self.seventh)

    @step
    def seventh(self):  # noqa: ANN201
        """One small step."""
        self.value += 1
        self.next(self.eighth)

    @step
    def eighth(self):  # noqa: ANN201
        """One small step."""
        self.value += 1
        self.next(self.ninth)

    @step
    def ninth(self):  # noqa: ANN201
        """One small step."""
        self.value += 1
        self.next(self.end)

    @step
    def end(self):  # noqa: ANN201
        """The tenth."""
        self.value += 1


if __name__ == "__main__":
    TenSteps()
