"""The tables: what was done, and what is still to do. Each state column's moves stand beside it.

Files are the truth about what was received; these tables are the truth about what was done with it.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)  # fmt: skip

from node.store.columns import Id, Moment, Words, index_of_some

VERSION = 4
"""Of the schema; a database of a later version is refused."""


metadata = MetaData()

meta = Table(
    "meta", metadata,
    Column("key", String(32), primary_key=True),
    Column("value", Words(), nullable=False),
)  # fmt: skip

cursor = Table(  # how far each receiver run's records were taken in
    "cursor", metadata,
    Column("receiver_run", Id, primary_key=True, autoincrement=False),
    Column("sequence", Id, nullable=False),
)  # fmt: skip

series = Table(  # one row per revision of a series: the members of a sealed one never change
    "series", metadata,
    Column("id", Id, primary_key=True),
    Column("study_uid", String(64), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", String(12), nullable=False),  # receiving → sealed → routed | unrouted | discarded | rejected
    Column("reason", Words(), nullable=False, default=""),  # why it was sealed, then what became of it
    Column("incomplete", Words(), nullable=False, default=""),  # why it is taken for incomplete
    Column("held", String(32), nullable=False, default=""),  # e.g. restored: waits for a person
    Column("ours", Boolean, nullable=False, default=False),  # made by a node like this one
    Column("patient_id", Words(256), nullable=False, default=""),
    Column("issuer", Words(256), nullable=False, default=""),
    Column("accession", Words(256), nullable=False, default=""),
    Column("modality", String(16), nullable=False, default=""),
    Column("series_number", Integer),
    Column("instances", Integer, nullable=False, default=0),
    Column("opened_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
    Column("sealed_at", Moment),
    Column("facts", LargeBinary),  # members and facts, written at seal
    Column("replay", Integer, nullable=False, default=0),  # how often a person asked for it to be judged again
    Column("replay_rule", Words(), nullable=False, default=""),  # only by this rule; empty for all
    Column("replay_fresh", Boolean, nullable=False, default=False),  # with new UIDs
    Column("removed_at", Moment),  # when retention removed its files
    Column("prior", Words(), nullable=False, default=""),  # the peer it was fetched from as a prior; else it arrived
    UniqueConstraint("study_uid", "series_uid", "revision"),
    index_of_some("series_open", "state", where="state IN ('receiving', 'sealed')"),
    Index("series_patient", "patient_id"),
    Index("series_accession", "accession"),
)  # fmt: skip

instance = Table(  # one row per received object
    "instance", metadata,
    Column("id", Id, primary_key=True),
    Column("receiver_run", Id, nullable=False),
    Column("sequence", Id, nullable=False),
    Column("state", String(12), nullable=False),  # kept|duplicate|replaced|conflict|unreadable|rejected|fetched|removed
    Column("reason", Words(), nullable=False, default=""),
    Column("series_id", Id, ForeignKey("series.id")),  # the revision it came with; none when it cannot be grouped
    Column("sop_uid", Words(256)),
    Column("sop_class", Words(), nullable=False),
    Column("transfer_syntax", Words(), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("pixel_digest", String(64), nullable=False),
    Column("pixels_at", Id, nullable=False, default=0),  # as in `Header`; the digest depends on it
    Column("size", Id, nullable=False),
    Column("peer", Words(), nullable=False),
    Column("association", Words(), nullable=False),
    Column("received_at", Moment, nullable=False),
    UniqueConstraint("receiver_run", "sequence"),
    index_of_some("instance_kept", "sop_uid", unique=True, where="state = 'kept'"),
    Index("instance_series", "series_id"),
)  # fmt: skip

run = Table(  # one rule over one revision
    "run", metadata,
    Column("id", Id, primary_key=True),
    Column("series_id", Id, ForeignKey("series.id"), nullable=False),
    Column("rule", Words(), nullable=False),
    Column("state", String(12), nullable=False),  # waiting → running → done|refused|quarantined|cancelled|superseded
    Column("reason", Words(), nullable=False, default=""),
    Column("attempt", Integer, nullable=False, default=0),
    Column("retries", Integer, nullable=False, default=0),  # how many more a failure may have
    Column("failures", Integer, nullable=False, default=0),  # attempts that failed; a restart of the node is none
    Column("plan", Words(), nullable=False),  # JSON: the rule as it was when the run began
    Column("sends", Words(), nullable=False),  # JSON: output name → destinations
    Column("shadow", Boolean, nullable=False, default=False),
    Column("replay", Integer, nullable=False, default=0),  # of the series, when it was opened
    Column("fresh", Boolean, nullable=False, default=False),  # takes a new generation of UIDs when it starts
    Column("files", Words(), nullable=False),  # JSON: instance ids used
    Column("identity", String(64), nullable=False, default=""),
    Column("due_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("withdraws", Id, nullable=False, default=0),  # the run whose results it withdraws; 0: it makes results
    Column("rank", Id, nullable=False, default=0),  # order in the queue: priority, then age (`ranks.rank_of`)
    Column("inputs", Words(), nullable=False, default=""),  # scope: study: JSON [input, series.id, objects] of each
    Column("turn", Integer, nullable=False, default=0),  # scope: study: counts what the rule made of the study
    Column("slot", Words(), nullable=False, default=""),  # scope: study, pick: each: Series Instance UID it is for
    UniqueConstraint("series_id", "rule", "replay", "withdraws", "inputs", "turn"),
    index_of_some("run_queue", "due_at", where="state IN ('waiting', 'running')"),
)  # fmt: skip

run_input = Table(  # scope: study: the revisions that a run takes, so that what becomes of one finds the run
    "run_input", metadata,
    Column("run_id", Id, ForeignKey("run.id"), primary_key=True, autoincrement=False),
    Column("series_id", Id, ForeignKey("series.id"), primary_key=True, autoincrement=False),
    Index("run_input_series", "series_id"),
)  # fmt: skip

study_rule = Table(  # what one rule of `scope: study` makes of one study, or waits for
    "study_rule", metadata,
    Column("id", Id, primary_key=True),
    Column("study_uid", String(64), nullable=False),
    Column("rule", Words(256), nullable=False),
    Column("state", String(12), nullable=False),  # waiting → ran | skipped | quarantined | refused; idle: no input left
    Column("reason", Words(), nullable=False, default=""),
    Column("since", Moment, nullable=False),  # since when it waits
    Column("until", Moment),  # when the wait ends; none where it does not wait
    Column("due_at", Moment),  # when it is judged again, if nothing happens before
    UniqueConstraint("study_uid", "rule"),
    index_of_some("study_rule_due", "due_at", where="due_at IS NOT NULL"),
)  # fmt: skip

wanted_prior = Table(  # a series of an earlier study that an input of a rule asks for
    "wanted_prior", metadata,
    Column("id", Id, primary_key=True),
    Column("study_uid", String(64), nullable=False),  # the study that wants it
    Column("rule", Words(256), nullable=False),
    Column("input", Words(64), nullable=False),
    Column("peer", Words(), nullable=False),  # where it is asked for
    Column("state", String(12), nullable=False),  # wanted → asking → fetched | none | failed
    Column("reason", Words(), nullable=False, default=""),
    Column("patient", Words(), nullable=False),  # JSON: keyword → value, of the four that make a patient the same
    Column("study_date", String(8), nullable=False),
    Column("study_time", String(16), nullable=False, default=""),
    Column("from_date", String(8), nullable=False),
    Column("tried", Words(), nullable=False, default="[]"),  # JSON: Series Instance UIDs that did not fit
    Column("attempt", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("series_id", Id, ForeignKey("series.id")),  # of what was fetched, or is held already
    Column("due_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("finished_at", Moment),
    UniqueConstraint("study_uid", "rule", "input"),
    index_of_some("wanted_prior_open", "due_at", where="state IN ('wanted', 'asking')"),
)  # fmt: skip

product = Table(  # one derived object, immutable once its run is done
    "product", metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", Id, ForeignKey("run.id"), nullable=False),
    Column("output", Words(), nullable=False),
    Column("index", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("path", Words(), nullable=False),  # relative to the data folder
    Column("sop_uid", String(64), nullable=False, index=True),
    Column("sop_class", Words(), nullable=False),
    Column("transfer_syntax", Words(), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("removed_at", Moment),  # when retention removed its file
    Column("size", Id, nullable=False, default=0),  # bytes; 0 where an older version made it
    UniqueConstraint("run_id", "output", "index"),
)  # fmt: skip

identity = Table(  # what an input, a rule meaning and versions were first made into; outlives retention
    "identity", metadata,
    Column("key", String(64), primary_key=True),  # without the generation
    Column("generation", Integer, nullable=False, default=0),
    Column("first_run_at", Moment, nullable=False),
    Column("revision", Integer, nullable=False, default=1),  # of the series, at the first run
    Column("series_numbers", Words(), nullable=False),  # JSON: output name → Series Number
    Column("digests", Words(), nullable=False, default="{}"),  # JSON: SOP Instance UID → digest of the file
    Column("predecessors", Words(), nullable=False, default="[]"),  # JSON: what its reports say they replace
)  # fmt: skip

_AWAITS_COPY = "state = 'waiting' AND sent_path = '' AND (treatment <> '' OR sent_syntax <> '')"

delivery = Table(  # one object to one destination, once
    "delivery", metadata,
    Column("id", Id, primary_key=True),
    Column("destination", Words(), nullable=False),
    Column("state", String(12), nullable=False),  # waiting → sending → stored → committed | parked | held | cancelled
    Column("reason", Words(), nullable=False, default=""),
    Column("instance_id", Id, ForeignKey("instance.id")),  # one of these two
    Column("product_id", Id, ForeignKey("product.id")),
    Column("rule", Words(), nullable=False),
    Column("stage", Integer, nullable=False, default=0),  # 0 images, 1 SEG and maps, 2 reports
    Column("attempt", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("status", Integer),  # the last C-STORE status
    Column("due_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Column("failing_since", Moment),  # its first failure since it was queued or taken up by hand
    Column("rank", Id, nullable=False, default=0),  # order in the queue: priority, then age (`ranks.rank_of`)
    Column("lossy", Boolean, nullable=False, default=False),  # its rule allows a lossy transfer syntax
    Column("sent_path", Words(), nullable=False, default=""),  # of a transcoded copy, relative to the data folder
    Column("sent_syntax", Words(), nullable=False, default=""),  # transfer syntax asked for, or of that copy
    Column("commit_due", Moment),  # stored, and to be committed: when to ask next (PS3.4 J)
    Column("commitment_id", Id),  # the request that asked last
    Column("commit_failures", Integer, nullable=False, default=0),  # how often it was not committed to, and sent again
    Column("treatment", Words(), nullable=False, default=""),  # JSON: what is changed in a copy; empty: sent as it is
    Column("sent_uid", String(64), nullable=False, default=""),  # SOP Instance UID of a copy that has one of its own
    Column("window", Words(), nullable=False, default=""),  # when the rule lets it be sent; empty: at any time
    UniqueConstraint("destination", "instance_id"),
    UniqueConstraint("destination", "product_id"),
    index_of_some("delivery_queue", "destination", "due_at", where="state IN ('waiting', 'sending')"),
    index_of_some("delivery_order", "destination", "rank", "id", where="state IN ('waiting', 'sending')"),
    index_of_some("delivery_commit", "destination", "commit_due", where="commit_due IS NOT NULL"),
    index_of_some("delivery_copy", "rank", "stage", "id", where=_AWAITS_COPY),
    index_of_some("delivery_copied", "destination", where="sent_path <> ''"),
    Index("delivery_instance", "instance_id"),
    Index("delivery_product", "product_id"),
)  # fmt: skip

lookup = Table(  # a table that treatments look values up in, under the digest by which they name it
    "lookup", metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", Words(), nullable=False),  # JSON: value → value
    Column("used_at", Moment, nullable=False),  # when a delivery that needs it was queued last
)  # fmt: skip

pseudonym = Table(  # who stands behind a name that de-identified copies carry
    "pseudonym", metadata,
    Column("pseudonym", String(64), primary_key=True),
    Column("patient_id", Words(), nullable=False),
    Column("issuer", Words(), nullable=False),
    Column("study_uid", Words(), nullable=False),  # where there is no Patient ID, one study stands for its patient
    Column("first_at", Moment, nullable=False),
    Index("pseudonym_patient", "patient_id"),
)  # fmt: skip

destination = Table(  # a destination that is down, and since when
    "destination", metadata,
    Column("name", Words(), primary_key=True),
    Column("down", Boolean, nullable=False, default=False),
    Column("reason", Words(), nullable=False, default=""),
    Column("since", Moment),
    Column("failures", Integer, nullable=False, default=0),
    Column("next_at", Moment),
    Column("kind", String(16), nullable=False, default=""),  # why it is down: `Trouble`
    Column("trial", Boolean, nullable=False, default=False),  # it answers again: the next object goes alone
    Column("waiting_bytes", Id, nullable=False, default=0),  # of what waits for it, as upkeep counted last
)  # fmt: skip

commitment = Table(  # what we asked a destination to commit to (PS3.4 J, we are the SCU)
    "commitment", metadata,
    Column("id", Id, primary_key=True),
    Column("transaction_uid", String(64), nullable=False, unique=True),
    Column("destination", Words(), nullable=False),
    Column("state", String(12), nullable=False),  # asking → asked → answered | expired | refused
    Column("reason", Words(), nullable=False, default=""),
    Column("objects", Integer, nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("due_at", Moment, nullable=False),  # by then it must have answered
    Column("finished_at", Moment),
    index_of_some("commitment_open", "due_at", where="state IN ('asking', 'asked')"),
)  # fmt: skip

pledge = Table(  # what a peer asked us to commit to (we are the SCP, for an archive that commits to us)
    "pledge", metadata,
    Column("id", Id, primary_key=True),
    Column("transaction_uid", Words(256), nullable=False),
    Column("peer", Words(), nullable=False),
    Column("called", Words(), nullable=False, default=""),  # our AE title as it was called
    Column("state", String(12), nullable=False),  # waiting → reporting → reported | given_up
    Column("reason", Words(), nullable=False, default=""),
    Column("asked", Words(), nullable=False),  # JSON: [SOP Class UID, SOP Instance UID] of each
    Column("report", Words(), nullable=False, default=""),  # JSON: what is answered, once that is known
    Column("received_at", Moment, nullable=False),
    Column("due_at", Moment, nullable=False),  # by then it is answered, whatever is not committed as failed
    Column("next_at", Moment, nullable=False),  # when to look, or to report, next
    Column("failures", Integer, nullable=False, default=0),
    Column("finished_at", Moment),
    index_of_some("pledge_open", "next_at", where="state IN ('waiting', 'reporting')"),
    Index("pledge_transaction", "peer", "transaction_uid"),
)  # fmt: skip

rejection = Table(  # an object that a rejection note names, whether it came before or after the note
    "rejection", metadata,
    Column("sop_uid", Words(256), primary_key=True),
    Column("code", String(16), nullable=False),  # of the note's title: 113001, 113037, 113038, 113039 (DCM)
    Column("instance_id", Id, ForeignKey("instance.id"), nullable=False),  # the note
    Column("at", Moment, nullable=False),
)  # fmt: skip

step = Table(  # what a modality says of its work (MPPS, PS3.4 F.7)
    "step", metadata,
    Column("id", Id, primary_key=True),
    Column("peer", Words(), nullable=False),
    Column("sop_uid", Words(256), nullable=False),
    Column("study_uid", Words(256), nullable=False, default=""),
    Column("station", Words(), nullable=False, default=""),  # Performed Station AE Title
    Column("state", String(12), nullable=False),  # in_progress → completed | discontinued
    Column("begun_at", Moment, nullable=False),
    Column("changed_at", Moment, nullable=False),
    UniqueConstraint("peer", "sop_uid"),
)  # fmt: skip

step_series = Table(  # the objects that a step made in one series
    "step_series", metadata,
    Column("id", Id, primary_key=True),
    Column("step_id", Id, ForeignKey("step.id"), nullable=False),
    Column("series_uid", Words(256), nullable=False),
    Column("objects", Integer, nullable=False),
    Column("named", LargeBinary, nullable=False),  # their SOP Instance UIDs
    UniqueConstraint("step_id", "series_uid"),
    Index("step_series_uid", "series_uid"),
)  # fmt: skip

prior_fetch = Table(  # a series of an earlier study that a peer was asked to send to us (C-MOVE, C-GET)
    "prior_fetch", metadata,
    Column("id", Id, primary_key=True),
    Column("wanted_id", Id, ForeignKey("wanted_prior.id"), nullable=False),
    Column("peer", Words(), nullable=False),
    Column("study_uid", String(64), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("way", String(8), nullable=False),  # move | get
    Column("calling", String(16), nullable=False),  # our AE title: what comes by C-MOVE names it
    Column("message_id", Integer, nullable=False),  # and this
    Column("patient", Words(), nullable=False),  # JSON, as in wanted_prior
    Column("state", String(12), nullable=False),  # asking → done | failed
    Column("reason", Words(), nullable=False, default=""),
    Column("series_id", Id, ForeignKey("series.id")),  # what came of it
    Column("asked_at", Moment, nullable=False),
    Column("finished_at", Moment),
    Index("prior_fetch_message", "message_id"),
)  # fmt: skip

measurement = Table(  # one number of one run
    "measurement", metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", Id, ForeignKey("run.id"), nullable=False),
    Column("output", Words(), nullable=False),
    Column("name", Words(), nullable=False),
    Column("derivation", Words(), nullable=False, default=""),
    Column("region", Words(), nullable=False, default=""),
    Column("value", Float, nullable=False),
    Column("unit", Words(), nullable=False),
    Index("measurement_run", "run_id"),
)  # fmt: skip

event = Table(  # every change a person may ask about
    "event", metadata,
    Column("id", Id, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("name", String(40), nullable=False),
    Column("series_id", Id),
    Column("run_id", Id),
    Column("instance_id", Id),
    Column("destination", Words(), nullable=False, default=""),
    Column("detail", Words(), nullable=False, default=""),
    Index("event_series", "series_id"),
    Index("event_run", "run_id"),
)  # fmt: skip

alert = Table(  # what is wrong now, so that each thing is told once, and its end as well
    "alert", metadata,
    Column("what", String(32), primary_key=True),
    Column("key", Words(256), primary_key=True),  # e.g. the destination; empty where there is one only
    Column("since", Moment, nullable=False),
    Column("told_at", Moment),
    Column("over_at", Moment),  # it has ended, and not everyone who heard of it has been told so yet
    Column("told", Words(), nullable=False, default=""),  # the channels that heard of it, one word each
    Column("detail", Words(), nullable=False, default=""),
)  # fmt: skip
