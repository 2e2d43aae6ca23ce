"""Tables and figures of finished runs.

`items/<item>.py` says what a reproduced item found, and tabulates it; `items/_<item>.py` draws its figures. `table`,
`export` and `figures` are for any runs. All of them draw in one `style`.
"""
