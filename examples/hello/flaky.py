"""A function with a mistake in it: see its retries, its dead letter, then mend it and retry the job."""


def flaky(price: float, count: int = 0):
    print("computing the price of one of", count)
    return {"each": price / count}  # count may be 0: use `count or 1`
