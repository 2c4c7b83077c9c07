"""Our own AST rules: what the house promises and no linter on the shelf can check. Run: `python -m lints PATH...`"""
