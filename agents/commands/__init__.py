"""One module per `codegym` command; each has `main(argv) -> exit status`."""
