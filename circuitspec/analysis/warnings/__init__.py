"""The known ways in which such evidence misleads, each with the measured numbers and a remedy.

In comes the evidence of a run as one value, plan, records, claims and all that was looked for besides.
And out come warnings, which stand whatever the verdict is. A kind of warning is one value: its code, the part of the
file that its remedy changes, what `circuitspec explain` says of it, and the function that finds it. `all_warnings`
lists the kinds.
"""
