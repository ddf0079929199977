def hello(name: str = "world"):
    """The keys of the JSON object that comes in are the arguments; what is returned is the result."""
    print("greeting", name)  # goes to the job's log
    return {"hello": name}
