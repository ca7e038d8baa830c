"""The sections of the platform's contract that rows come from, each with the public page that says so.

Numbers stay what they are once a report has named them.
"""

from dataclasses import dataclass

PAGES = "https://docs.aws.amazon.com/sagemaker/latest/dg/"


@dataclass(frozen=True)
class Section:
    """A part of the contract."""

    number: str
    title: str
    page: str

    @property
    def url(self) -> str:
        """Where the platform's own documentation speaks of it."""
        return f"{PAGES}{self.page}.html"


SECTIONS = {
    section.number: section
    for section in (
        Section("1.1", "How a training container is launched", "your-algorithms-training-algo-dockerfile"),
        Section("1.2", "The folders of a training job", "your-algorithms-training-algo-output"),
        Section("1.3", "Hyperparameters", "your-algorithms-training-algo-running-container"),
        Section("1.4", "Input channels", "your-algorithms-training-algo-running-container"),
        Section("1.5", "Hosts", "your-algorithms-training-algo-running-container"),
        Section("1.6", "What a training job may reach", "mkt-algo-model-internet-free"),
        Section("1.7", "Variables of script mode", "adapt-training-container"),
        Section("1.15", "Jobs that start bash instead of train", "adapt-training-container"),
        Section("2.1", "Launch, probes and limits of a server", "your-algorithms-inference-code"),
        Section("2.3", "Headers of a request", "your-algorithms-inference-code"),
        Section("2.6", "Batch transform", "your-algorithms-batch-code"),
        Section("2.9", "Serverless endpoints", "serverless-endpoints"),
        Section("2.10", "Several containers on one machine", "realtime-endpoints-deploy-models"),
        Section("2.11", "How a model is laid out", "large-model-inference-uncompressed"),
        Section("3.1", "Labels and start of a multi-model server", "build-multi-model-build-container"),
        Section("3.2", "The multi-model API", "mms-container-apis"),
        Section("3.3", "What the platform does with models", "mms-container-apis"),
    )
}
