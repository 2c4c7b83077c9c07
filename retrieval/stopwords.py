"""Words that questions are made of, whatever they are about; looking them up would find everything."""

from typing import Final

STOP_WORDS: Final = frozenset(
    """
    a about after all allow allowed also am an and any anyone anything are as at be because been before being but by
    called can cannot change changes changing choose chooses chosen connect could did different do does doing don done
    each either else even ever every find for from get gets getting give go going got had happen happened happens has
    have having he hello help her here hey hi him his how i if in instead into is isn it its just kindly know let like
    ll look lot make makes making many may me mean meaning means might mine more most mr much must my need needs never
    no not now of off often on one only or other our out over own please possible put puts question questions quite
    rather re really s say see send sending sends set sets setting shall she should show so some someone something still
    such t take tell than thank thanks that the their them then there these they thing things this those through time to
    too try until up upon us usage use used uses using ve very want wants was way ways we well went were what whatever
    when where whether which while who whom whose why will with within without won work working works would yes yet you
    your yours
    """.split()  # noqa: SIM905  a column of 150 strings is not easier to read
)
