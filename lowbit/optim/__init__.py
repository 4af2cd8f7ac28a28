"""Optimizers for binary weights, and options by the part that parameters play."""

from lowbit.optim.bop import Bop
from lowbit.optim.case_optimizer import CaseOptimizer
from lowbit.optim.claims import by_claim, by_role
from lowbit.optim.parameter_roles import roles

__all__ = ["Bop", "CaseOptimizer", "by_claim", "by_role", "roles"]
