"""One network for all of the router's questions, after HoME (2024, arXiv 2408.05430), and what it is held to.

It is trained and measured here and read by no call: on sources that it had not seen it does not beat one linear model
a question, and router/cards/multigate.md has the figures.
"""
