"""Tables and figures of finished runs.

`items/<item>.py` makes the report of a reproduced item, numbers first, then the drawing. `table`, `export`, `curves`
and `sweep` are for any runs; `pictures/<task>.py` draws what a single run left. All of them draw in one `style`.
"""
