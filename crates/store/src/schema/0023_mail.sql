ALTER TABLE alert ADD COLUMN email_confirmed boolean NOT NULL DEFAULT FALSE;
ALTER TABLE alert ADD COLUMN email_codes smallint NOT NULL DEFAULT 0;
{sqlite} CREATE TRIGGER admin_log_no_update BEFORE UPDATE ON admin_log BEGIN SELECT RAISE(ABORT, 'admin_log is append-only'); END;
{sqlite} CREATE TRIGGER admin_log_no_delete BEFORE DELETE ON admin_log BEGIN SELECT RAISE(ABORT, 'admin_log is append-only'); END;
{postgres} CREATE OR REPLACE FUNCTION batchin_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$;
{postgres} CREATE TRIGGER admin_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON admin_log FOR EACH STATEMENT EXECUTE FUNCTION batchin_append_only()
