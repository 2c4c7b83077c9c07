"""What standing costs honest callers, and how soon an attacker meets it: drawn calls against the shipped rules.

    python -m benchmarks.safety.standing
    python -m benchmarks.safety.standing --calls 100000 --seed 7
    python -m benchmarks.safety.standing --refuse

An honest caller makes a call every 30 seconds, and each is taken for an attack with a given chance (a medium finding:
what a learned check makes). Where its band is `watch` or stricter, that finding is refused, else it is annotated: so
does the default `standing` with `mode: on`. With `--refuse` it is refused in every band, as where the checks' action is
`block`. An attacker does the same with nothing but attacks, or hides each of them among clean calls.
"""

import random
from typing import Final

import click

from conclave.safety.api import Severity
from conclave.safety.detect.standing import Band, Standing, blame_of

EVERY_S: Final = 30.0
CHANCES: Final = (0.002, 0.01, 0.03)


def caller(draw: random.Random, chance: float, calls: int, *, refuse: bool) -> tuple[float, float, float]:
    """Shares of an honest caller's calls: in `watch`, in `restricted`, and refused."""
    standing, seen, refused = Standing(), dict.fromkeys(Band, 0), 0
    for number in range(calls):
        now_s = number * EVERY_S
        band = Band.of(standing.trust_at(now_s))
        seen[band] += 1
        if draw.random() < chance:
            blocked = refuse or band > Band.OPEN
            refused += blocked
            standing = standing.after(blame_of(Severity.MEDIUM, refused=blocked), now_s)
        else:
            standing = standing.after_clean(now_s)
    return seen[Band.WATCH] / calls, seen[Band.RESTRICTED] / calls, refused / calls


def attacker(clean_between: int, calls: int, *, refuse: bool) -> tuple[int, float, float]:
    """The call from which an attacker is restricted (0: never), and the shares of attacks refused and of calls open."""
    standing, first, refused, attacks, opened = Standing(), 0, 0, 0, 0
    for number in range(calls):
        now_s = number * EVERY_S
        band = Band.of(standing.trust_at(now_s))
        opened += band is Band.OPEN
        if band is Band.RESTRICTED and not first:
            first = number + 1
        if number % (clean_between + 1) == 0:
            attacks += 1
            blocked = refuse or band > Band.OPEN
            refused += blocked
            standing = standing.after(blame_of(Severity.MEDIUM, refused=blocked), now_s)
        else:
            standing = standing.after_clean(now_s)
    return first, refused / attacks, opened / calls


@click.command(help=__doc__.split("\n", maxsplit=1)[0])
@click.option("--calls", default=100_000, show_default=True, type=click.IntRange(100))
@click.option("--seed", default=1, show_default=True)
@click.option("--refuse", is_flag=True, help="Findings are refused in every band.")
def main(*, calls: int, seed: int, refuse: bool) -> None:
    """Print both tables."""
    click.echo("honest: a call is taken for an attack | in watch | restricted | calls refused")
    for chance in CHANCES:
        watch, restricted, refused = caller(random.Random(seed), chance, calls, refuse=refuse)  # noqa: S311  drawn calls, no secret
        click.echo(f"{chance:37.1%} | {watch:8.2%} | {restricted:10.2%} | {refused:.3%}")
    click.echo("attacker: clean calls between attacks | restricted from call | attacks refused | calls open")
    for clean in (0, 2, 5, 10, 20):
        first, refused, opened = attacker(clean, calls, refuse=refuse)
        click.echo(f"{clean:37} | {first or 'never':>20} | {refused:15.1%} | {opened:.1%}")


if __name__ == "__main__":
    main()
