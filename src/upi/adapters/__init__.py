"""Explanation methods of other libraries as maps of this one; each needs its library, none is imported here.

    from upi.adapters.captum import Captum
    upi.evaluate(model, {"upi-grad": perturbation}, loader, saliency=Captum("IntegratedGradients"))

Every adapter is a map: ``(model, images (N, C, H, W) in [0, 1], classes (N,)) -> maps (N, H, W)``. Before a
fit its attack gradient is compared with differences (``upi.attacks.support.gradient_check``), since a method
may look differentiable without being it; a method that answers in NumPy is evaluated, never fitted on.
"""
