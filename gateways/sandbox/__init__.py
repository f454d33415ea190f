"""Commands of a session, shut in: bubblewrap, a workspace, shells, a display.

    Sandboxes.open(session) → Sandbox.shell(…), .run(…), .display()

What holds the programs of a session back, and where:

- Namespaces of their own for users, processes, mounts, network, IPC, host name and cgroups
  (bwrap, confining.py). A network exists only where the operator allows it; it then is the host's.
- Never uid 0. A server that is root becomes a uid of the session's own before anything else
  (launcher.py); inside, everybody is 1000, without capabilities, and nothing can be gained.
- /usr read-only, a few files of /etc, a workspace; scratch space in memory of a fixed size. No
  file, descriptor or environment of the server.
- A system call filter (filtering.py): no ptrace, no memory that no limit counts, no io_uring.
- Limits per process and per user, set before any command runs (inside.py): processes, data, file
  size, CPU time, open files.
- Limits of the whole, watched from outside every 100 ms (watching.py): memory of all processes,
  and size of the workspace. Who exceeds them is ended, with everything.
- Everything ends with the server, whatever way it ends (launcher.py, PR_SET_PDEATHSIG).
"""
