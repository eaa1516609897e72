"""Which rules a series matches, and why: rules, matching, checks. Never opens pixel data.

Reading: `rules` takes files, `rule_reading` one rule, and each of its parts has a module that says what may stand
there: `when_reading`, `steps`, `sends` and `ways`, `edits`, `splitting`, `inputs_reading`, `tries`.
`rule` is what comes of it.

Matching: `weighing` says what `use` and `when` say of a series, with `conditions` on the values of `keywords`, and
`aggregates` of the series as a whole; `match` says which rules apply, `at_once` those that send objects as they come.
Rules over a study: `study` and `study_views`, with `preferring` and `priors`; `study_values` is what comes of it.

Telling: `check` with everything that `cautions` knows, `explain` and `study_explain`, `schema` for editors.
"""
