// Command tlogcheck verifies a C2SP tlog-tiles log with golang.org/x/mod/sumdb, which shares no
// code with the log's own implementation.
//
//	tlogcheck -vkey VKEY [-from CHECKPOINT]... [-sizes 1,255,256] LOCATION
//	tlogcheck -vkey VKEY -proof FILE.tlog-proof -leaf FILE
//
// With -cosigner VKEY, repeated for each witness, the checkpoint must carry the cosignature of each.
//
// LOCATION is a folder or a URL that has `checkpoint` and `tile/...` below it. A bearer token for
// the URL is taken from TLOGCHECK_TOKEN. Exit status 0 says that everything verified.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

var errMissing = errors.New("not found")

// A source gives the bytes under a path of the log.
type source func(path string) ([]byte, error)

func open(location string) source {
	if strings.HasPrefix(location, "http://") || strings.HasPrefix(location, "https://") {
		return func(path string) ([]byte, error) { return get(strings.TrimSuffix(location, "/") + "/" + path) }
	}
	return func(path string) ([]byte, error) {
		data, err := os.ReadFile(filepath.Join(location, filepath.FromSlash(path)))
		if errors.Is(err, os.ErrNotExist) {
			return nil, errMissing
		}
		return data, err
	}
}

func get(url string) ([]byte, error) {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "tlogcheck")
	if token := os.Getenv("TLOGCHECK_TOKEN"); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound {
		return nil, errMissing
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 32<<20))
}

// tiles implements tlog.TileReader. Nothing that it reads is trusted: TileHashReader checks it.
type tiles struct {
	read source
	seen map[string][]byte
}

func (t *tiles) Height() int                     { return height }
func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t *tiles) path(tile tlog.Tile) string {
	return strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
}
func (t *tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, 0, len(want))
	for _, tile := range want {
		data, ok := t.seen[t.path(tile)]
		if !ok {
			var err error
			if data, err = t.one(tile); err != nil {
				return nil, fmt.Errorf("%s: %w", t.path(tile), err)
			}
			t.seen[t.path(tile)] = data
		}
		found = append(found, data)
	}
	return found, nil
}

// A partial tile may have been deleted once the full one is there.
func (t *tiles) one(tile tlog.Tile) ([]byte, error) {
	data, err := t.read(t.path(tile))
	if errors.Is(err, errMissing) && tile.W < 1<<height {
		width := tile.W
		tile.W = 1 << height
		if data, err = t.read(t.path(tile)); err == nil && len(data) >= width*tlog.HashSize {
			data = data[:width*tlog.HashSize]
		}
	}
	return data, err
}

// A cosigner implements note.Verifier for C2SP tlog-cosignature of type 0x04.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }
func (c *cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(signature))
	return ed25519.Verify(c.key, append([]byte(head), text...), signature[8:])
}

type cosigners []note.Verifier

func (c *cosigners) String() string { return fmt.Sprint(len(*c)) }
func (c *cosigners) Set(vkey string) error {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return errors.New("not a vkey")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != 0x04 {
		return errors.New("not the vkey of an Ed25519 witness")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), raw...))
	hash := binary.BigEndian.Uint32(sum[:4])
	if fmt.Sprintf("%08x", hash) != parts[1] {
		return errors.New("the vkey has another key id")
	}
	*c = append(*c, &cosigner{parts[0], hash, raw[1:]})
	return nil
}

// Each of these, and the log itself, must have signed.
func openAll(data []byte, verifiers ...note.Verifier) (*note.Note, error) {
	signed, err := note.Open(data, note.VerifierList(verifiers...))
	if err != nil {
		return nil, err
	}
	for _, verifier := range verifiers {
		found := false
		for _, signature := range signed.Sigs {
			found = found || (signature.Name == verifier.Name() && signature.Hash == verifier.KeyHash())
		}
		if !found {
			return nil, fmt.Errorf("not signed by %s", verifier.Name())
		}
	}
	return signed, nil
}

func openCheckpoint(data []byte, verifier note.Verifier, witnesses ...note.Verifier) (tlog.Tree, error) {
	signed, err := openAll(data, append([]note.Verifier{verifier}, witnesses...)...)
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return tlog.Tree{}, errors.New("not a checkpoint of three lines")
	}
	if lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("origin %q, not %q", lines[0], verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != lines[1] || size < 0 {
		return tlog.Tree{}, fmt.Errorf("size %q", lines[1])
	}
	hash, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, err
}

func bundle(read source, number int64, width int) ([][]byte, error) {
	tile := tlog.Tile{H: height, L: -1, N: number, W: width}
	name := func() string { return strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1) }
	data, err := read(name())
	if errors.Is(err, errMissing) && width < 1<<height {
		tile.W = 1 << height
		data, err = read(name())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name(), err)
	}
	var entries [][]byte
	for len(data) > 0 && len(entries) < width {
		if len(data) < 2 {
			return nil, fmt.Errorf("%s: ends within a length", name())
		}
		length := int(data[0])<<8 | int(data[1])
		if len(data) < 2+length {
			return nil, fmt.Errorf("%s: ends within an entry", name())
		}
		entries = append(entries, data[2:2+length])
		data = data[2+length:]
	}
	if len(entries) != width || (tile.W == width && len(data) > 0) {
		return nil, fmt.Errorf("%s: %d entries and %d more bytes, not %d entries", name(), len(entries), len(data), width)
	}
	return entries, nil
}

func checkEntries(read source, tree tlog.Tree, hashes tlog.HashReader) error {
	for number := int64(0); number<<height < tree.N; number++ {
		width := 1 << height
		if left := tree.N - number<<height; left < int64(width) {
			width = int(left)
		}
		entries, err := bundle(read, number, width)
		if err != nil {
			return err
		}
		for i, entry := range entries {
			index := number<<height + int64(i)
			leaf := tlog.RecordHash(entry)
			stored, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			if err != nil {
				return err
			}
			if stored[0] != leaf {
				return fmt.Errorf("entry %d is not the one that the leaf tile holds", index)
			}
			proof, err := tlog.ProveRecord(tree.N, index, hashes)
			if err != nil {
				return err
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf); err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
		}
	}
	return nil
}

func checkConsistency(tree, old tlog.Tree, hashes tlog.HashReader) error {
	if old.N == 0 {
		return nil
	}
	if old.N > tree.N {
		return fmt.Errorf("the log had %d entries, now %d", old.N, tree.N)
	}
	proof, err := tlog.ProveTree(tree.N, old.N, hashes)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash)
}

func checkLog(location string, verifier note.Verifier, witnesses []note.Verifier, from []string, sizes string) error {
	read := open(location)
	data, err := read("checkpoint")
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	tree, err := openCheckpoint(data, verifier, witnesses...)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	hashes := tlog.TileHashReader(tree, &tiles{read, map[string][]byte{}})
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil || root != tree.Hash {
		return fmt.Errorf("root of %d entries: %v", tree.N, err)
	}
	if err := checkEntries(read, tree, hashes); err != nil {
		return err
	}
	checked := 0
	for _, word := range strings.FieldsFunc(sizes, func(r rune) bool { return r == ',' }) {
		size, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return err
		}
		hash, err := tlog.TreeHash(size, hashes)
		if err != nil {
			return fmt.Errorf("root at %d: %w", size, err)
		}
		if err := checkConsistency(tree, tlog.Tree{N: size, Hash: hash}, hashes); err != nil {
			return fmt.Errorf("consistency from %d: %w", size, err)
		}
		checked++
	}
	for _, name := range from {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		old, err := openCheckpoint(data, verifier)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := checkConsistency(tree, old, hashes); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		checked++
	}
	fmt.Printf("ok: %s, %d entries, root %v, %d earlier sizes, %d witnesses\n", verifier.Name(), tree.N, tree.Hash, checked, len(witnesses))
	return nil
}

func checkProof(proofFile, leafFile string, verifier note.Verifier, witnesses []note.Verifier) error {
	data, err := os.ReadFile(proofFile)
	if err != nil {
		return err
	}
	leaf, err := os.ReadFile(leafFile)
	if err != nil {
		return err
	}
	at := bytes.Index(data, []byte("\n\n"))
	if at < 0 {
		return errors.New("no checkpoint in the proof")
	}
	tree, err := openCheckpoint(data[at+2:], verifier, witnesses...)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	lines := strings.Split(string(data[:at]), "\n")
	if lines[0] != "c2sp.org/tlog-proof@v1" {
		return fmt.Errorf("first line %q", lines[0])
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return errors.New("no index in the proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "index "), 10, 64)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[1:] {
		raw, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(raw) != tlog.HashSize {
			return fmt.Errorf("hash %q in the proof", line)
		}
		var hash tlog.Hash
		copy(hash[:], raw)
		proof = append(proof, hash)
	}
	if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(leaf)); err != nil {
		return err
	}
	fmt.Printf("ok: %s, entry %d of %d, %d witnesses\n", verifier.Name(), index, tree.N, len(witnesses))
	return nil
}

type list []string

func (l *list) String() string         { return strings.Join(*l, ",") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

func main() {
	var from list
	var witnesses cosigners
	vkey := flag.String("vkey", "", "the log's verifier key")
	sizes := flag.String("sizes", "", "earlier sizes to prove consistent, with commas")
	proof := flag.String("proof", "", "a .tlog-proof file")
	leaf := flag.String("leaf", "", "the entry that it proves")
	flag.Var(&witnesses, "cosigner", "a witness's verifier key; may be repeated")
	flag.Var(&from, "from", "an earlier checkpoint file; may be repeated")
	flag.Parse()
	verifier, err := note.NewVerifier(*vkey)
	switch {
	case err != nil:
	case *proof != "":
		err = checkProof(*proof, *leaf, verifier, witnesses)
	case flag.NArg() == 1:
		err = checkLog(flag.Arg(0), verifier, witnesses, from, *sizes)
	default:
		err = errors.New("name one location, or -proof and -leaf")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tlogcheck:", err)
		os.Exit(1)
	}
}
