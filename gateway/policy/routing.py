"""The policy's `routing`: what is known of the experts, what they may cost, and how a choice may be second-guessed.

A value, checked for shape only, as the rest of the document.
"""

from conclave.gateway.policy.part import Part


class Routing(Part):
    """How an expert is chosen where the policy's `categories` do not say it."""
