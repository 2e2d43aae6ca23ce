"""A finished run, looked at.

trained             load its network, weights and data
scoring             score it under other solvers (`odenet eval`)
forecast            predict the series of a table (`odenet predict`),
held_out_forecast     those of data that are drawn,
forecast_rows         and what is written and said of either
answers             what a classifier or a regression says of each sample (`odenet predict`)
audit               is it still an ODE under finer solvers (`odenet audit`)
gradcheck           compare its gradient with exact ones (`odenet gradcheck`)
doctor              what is wrong with the solves of a run (`odenet doctor`)
rerun               repeat the step in which it failed (`odenet rerun`)
measures/           what an experiment measures on its networks (`odenet reproduce`)
"""
