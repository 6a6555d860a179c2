"""The user-facing API for inference: `Session`, its answers, `Estimator` and `push`."""

from fsd_inference.progress import Progress
from fsd_inference.session.estimator import Estimator
from fsd_inference.session.inference import Inference
from fsd_inference.session.pushing import Push, push
from fsd_inference.session.session import Session

__all__ = ["Estimator", "Inference", "Progress", "Push", "Session", "push"]
