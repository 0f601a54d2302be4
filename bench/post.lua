-- What wrk sends: a POST whose body the environment names, by default one of 100 bytes.
wrk.method = "POST"
wrk.body = os.getenv("BENCH_BODY") or string.rep("x", 100)
