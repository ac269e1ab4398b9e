// Checks a log as C2SP's tlog-tiles serves it with the packages of Go's checksum database.
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"

	"check/sumdb/note"
	"check/sumdb/tlog"
)

type facts struct {
	Old     string   `json:"old"`
	Records []string `json:"records"`
	NoteKey string   `json:"note_key"`
	Origin  string   `json:"origin"`
}

type record struct {
	SignedPayload string `json:"signed_payload"`
	Log           struct {
		Index          int64    `json:"index"`
		InclusionProof []string `json:"inclusion_proof"`
		Checkpoint     string   `json:"checkpoint"`
	} `json:"log"`
}

var base string

func get(path string) []byte {
	answer, err := http.Get(base + path)
	check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	check(err)
	if answer.StatusCode != 200 {
		log.Fatalf("%s: %d %s", path, answer.StatusCode, body)
	}
	return body
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Go's tiles have their height in the path, and C2SP's have not.
type tiles struct{}

func (tiles) Height() int                         { return 8 }
func (tiles) SaveTiles([]tlog.Tile, [][]byte)     {}
func (tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var read [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "/audit/log/tile/", 1)
		bytes := get(path)
		if len(bytes) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes", path, len(bytes))
		}
		read = append(read, bytes)
	}
	return read, nil
}

func open(signed, key, origin string) tlog.Tree {
	verifier, err := note.NewVerifier(key)
	check(err)
	opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != origin {
		log.Fatalf("no checkpoint of %s: %q", origin, opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)
	return tlog.Tree{N: size, Hash: root}
}

func main() {
	base = strings.TrimSuffix(os.Args[1], "/")
	var given facts
	check(json.Unmarshal([]byte(os.Args[2]), &given))
	old := open(given.Old, given.NoteKey, given.Origin)
	now := open(string(get("/audit/log/checkpoint")), given.NoteKey, given.Origin)
	if old.N >= now.N || now.N < 257 {
		log.Fatalf("the log went from %d to %d", old.N, now.N)
	}
	reader := tlog.TileHashReader(now, tiles{})
	proof, err := tlog.ProveTree(now.N, old.N, reader)
	check(err)
	check(tlog.CheckTree(proof, now.N, now.Hash, old.N, old.Hash))
	for _, name := range given.Records {
		var shown record
		check(json.Unmarshal(get("/v1/audit/"+name), &shown))
		entry := sha256.Sum256([]byte(shown.SignedPayload))
		leaf := tlog.RecordHash(entry[:])
		mine, err := tlog.ProveRecord(now.N, shown.Log.Index, reader)
		check(err)
		check(tlog.CheckRecord(mine, now.N, now.Hash, shown.Log.Index, leaf))
		var told tlog.RecordProof
		for _, text := range shown.Log.InclusionProof {
			bytes, err := base64.StdEncoding.DecodeString(text)
			check(err)
			told = append(told, tlog.Hash(bytes))
		}
		then := open(shown.Log.Checkpoint, given.NoteKey, given.Origin)
		check(tlog.CheckRecord(told, then.N, then.Hash, shown.Log.Index, leaf))
		if tlog.CheckRecord(told, then.N, then.Hash, shown.Log.Index, tlog.RecordHash([]byte("other"))) == nil {
			log.Fatal("another entry is there too")
		}
	}
	fmt.Println(now.N)
}
