CREATE TABLE cursor (
	receiver_run BIGINT NOT NULL,
	sequence BIGINT NOT NULL,
	PRIMARY KEY (receiver_run)
);
CREATE TABLE destination (
	name TEXT NOT NULL,
	down BOOLEAN NOT NULL,
	reason TEXT NOT NULL,
	since TIMESTAMP WITHOUT TIME ZONE,
	failures INTEGER NOT NULL,
	next_at TIMESTAMP WITHOUT TIME ZONE,
	PRIMARY KEY (name)
);
CREATE TABLE event (
	id BIGSERIAL NOT NULL,
	at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
	name VARCHAR(40) NOT NULL,
	series_id BIGINT,
	run_id BIGINT,
	instance_id BIGINT,
	destination TEXT NOT NULL,
	detail TEXT NOT NULL,
	PRIMARY KEY (id)
);
CREATE INDEX event_run ON event (run_id);
CREATE INDEX event_series ON event (series_id);
CREATE TABLE identity (
	key VARCHAR(64) NOT NULL,
	generation INTEGER NOT NULL,
	first_run_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
	revision INTEGER NOT NULL,
	series_numbers TEXT NOT NULL,
	digests TEXT NOT NULL,
	PRIMARY KEY (key)
);
CREATE TABLE meta (
	key VARCHAR(32) NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY (key)
);
CREATE TABLE series (
	id BIGSERIAL NOT NULL,
	study_uid VARCHAR(64) NOT NULL,
	series_uid VARCHAR(64) NOT NULL,
	revision INTEGER NOT NULL,
	state VARCHAR(12) NOT NULL,
	reason TEXT NOT NULL,
	incomplete TEXT NOT NULL,
	held VARCHAR(32) NOT NULL,
	ours BOOLEAN NOT NULL,
	patient_id TEXT NOT NULL,
	issuer TEXT NOT NULL,
	accession TEXT NOT NULL,
	modality VARCHAR(16) NOT NULL,
	series_number INTEGER,
	instances INTEGER NOT NULL,
	opened_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
	last_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
	sealed_at TIMESTAMP WITHOUT TIME ZONE,
	facts BYTEA,
	PRIMARY KEY (id),
	UNIQUE (study_uid, series_uid, revision)
);
CREATE INDEX series_accession ON series (accession);
CREATE INDEX series_open ON series (state) WHERE state IN ('receiving', 'sealed');
CREATE INDEX series_patient ON series (patient_id);
CREATE TABLE instance (
	id BIGSERIAL NOT NULL,
	receiver_run BIGINT NOT NULL,
	sequence BIGINT NOT NULL,
	state VARCHAR(12) NOT NULL,
	reason TEXT NOT NULL,
	series_id BIGINT,
	sop_uid TEXT,
	sop_class TEXT NOT NULL,
	transfer_syntax TEXT NOT NULL,
	digest VARCHAR(64) NOT NULL,
	pixel_digest VARCHAR(64) NOT NULL,
	size BIGINT NOT NULL,
	peer TEXT NOT NULL,
	association TEXT NOT NULL,
	received_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (receiver_run, sequence),
	FOREIGN KEY(series_id) REFERENCES series (id)
);
CREATE UNIQUE INDEX instance_kept ON instance (sop_uid) WHERE state = 'kept';
CREATE INDEX instance_series ON instance (series_id);
CREATE TABLE run (
	id BIGSERIAL NOT NULL,
	series_id BIGINT NOT NULL,
	rule TEXT NOT NULL,
	state VARCHAR(12) NOT NULL,
	reason TEXT NOT NULL,
	attempt INTEGER NOT NULL,
	retries INTEGER NOT NULL,
	failures INTEGER NOT NULL,
	plan TEXT NOT NULL,
	sends TEXT NOT NULL,
	shadow BOOLEAN NOT NULL,
	files TEXT NOT NULL,
	identity VARCHAR(64) NOT NULL,
	due_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
	created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
	started_at TIMESTAMP WITHOUT TIME ZONE,
	finished_at TIMESTAMP WITHOUT TIME ZONE,
	PRIMARY KEY (id),
	UNIQUE (series_id, rule),
	FOREIGN KEY(series_id) REFERENCES series (id)
);
CREATE INDEX run_queue ON run (due_at) WHERE state IN ('waiting', 'running');
CREATE TABLE measurement (
	id BIGSERIAL NOT NULL,
	run_id BIGINT NOT NULL,
	output TEXT NOT NULL,
	name TEXT NOT NULL,
	derivation TEXT NOT NULL,
	region TEXT NOT NULL,
	value FLOAT NOT NULL,
	unit TEXT NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(run_id) REFERENCES run (id)
);
CREATE INDEX measurement_run ON measurement (run_id);
CREATE TABLE product (
	id BIGSERIAL NOT NULL,
	run_id BIGINT NOT NULL,
	output TEXT NOT NULL,
	index INTEGER NOT NULL,
	kind VARCHAR(16) NOT NULL,
	path TEXT NOT NULL,
	sop_uid VARCHAR(64) NOT NULL,
	sop_class TEXT NOT NULL,
	transfer_syntax TEXT NOT NULL,
	series_uid VARCHAR(64) NOT NULL,
	digest VARCHAR(64) NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (run_id, output, index),
	FOREIGN KEY(run_id) REFERENCES run (id)
);
CREATE INDEX ix_product_sop_uid ON product (sop_uid);
CREATE TABLE delivery (
	id BIGSERIAL NOT NULL,
	destination TEXT NOT NULL,
	state VARCHAR(12) NOT NULL,
	reason TEXT NOT NULL,
	instance_id BIGINT,
	product_id BIGINT,
	rule TEXT NOT NULL,
	stage INTEGER NOT NULL,
	attempt INTEGER NOT NULL,
	failures INTEGER NOT NULL,
	status INTEGER,
	due_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
	created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
	finished_at TIMESTAMP WITHOUT TIME ZONE,
	PRIMARY KEY (id),
	UNIQUE (destination, instance_id),
	UNIQUE (destination, product_id),
	FOREIGN KEY(instance_id) REFERENCES instance (id),
	FOREIGN KEY(product_id) REFERENCES product (id)
);
CREATE INDEX delivery_instance ON delivery (instance_id);
CREATE INDEX delivery_product ON delivery (product_id);
CREATE INDEX delivery_queue ON delivery (destination, due_at) WHERE state IN ('waiting', 'sending');
