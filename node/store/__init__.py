"""Store: files that survive power loss, and the tables of what was done.

Files: `files` keeps an object before it is acknowledged, `arrival` is the head of its file, `records` reads the
directory that is the queue. Tables: `schema` is their list, `columns` their types, `migrations` leads older ones
there, `database` opens them and guards every move between states, `snapshot` copies them.

Rows, in the order of the data's way: `intake` and `aside` (what was received), `steps`, `rejections`, `studies` and
`fetches` (what else is known of it), `work` and `issued` (runs and results), `deliveries`, `queues`, `copies` and
`commitments` (what is sent), `pledges` (what peers ask of us). For people: `choosing`, `queries`, `history`,
`standing`, and `acts` and `replays` for what they do; for those who watch: `watch`.
"""
