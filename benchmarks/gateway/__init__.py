"""What the gateway costs: Conclave beside a bare FastAPI + aiohttp pass-through (F).

Over a mock upstream; `python -m benchmarks.gateway run`.
"""
