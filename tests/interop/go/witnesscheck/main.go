// Command witnesscheck is a log that tests a C2SP tlog-witness: it shows it an honest history, then
// forks, rolls back and breaks the protocol, and verifies every answer with golang.org/x/mod/sumdb.
//
//	witnesscheck -witness VKEY -log SKEY -logvkey VKEY -stranger SKEY URL
//
// The witness must know the log and not the stranger, and have cosigned nothing yet.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A cosignature implements note.Verifier for C2SP tlog-cosignature of type 0x04.
type cosignature struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosignature(vkey string) (*cosignature, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("not a vkey")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != 0x04 {
		return nil, errors.New("not the vkey of an Ed25519 witness")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), raw...))
	hash := binary.BigEndian.Uint32(sum[:4])
	if fmt.Sprintf("%08x", hash) != parts[1] {
		return nil, errors.New("the vkey has another key id")
	}
	return &cosignature{parts[0], hash, raw[1:]}, nil
}

func (c *cosignature) Name() string    { return c.name }
func (c *cosignature) KeyHash() uint32 { return c.hash }
func (c *cosignature) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(signature))
	return ed25519.Verify(c.key, append([]byte(head), text...), signature[8:])
}

// A history is a tree with all its hashes.
type history []tlog.Hash

func (h *history) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, 0, len(indexes))
	for _, index := range indexes {
		found = append(found, (*h)[index])
	}
	return found, nil
}

// Two branches share their first three entries.
func grow(branch string, size int64) *history {
	h := &history{}
	for i := int64(0); i < size; i++ {
		word := branch
		if i < 3 {
			word = "all"
		}
		hashes, err := tlog.StoredHashes(i, []byte(fmt.Sprintf("entry %d of %s", i, word)), h)
		if err != nil {
			panic(err)
		}
		*h = append(*h, hashes...)
	}
	return h
}

type check struct {
	url      string
	origin   string
	signer   note.Signer
	verifier note.Verifier
	witness  *cosignature
	answers  int
}

func (c *check) checkpoint(branch string, size int64, signer note.Signer) []byte {
	root, err := tlog.TreeHash(size, grow(branch, size))
	if err != nil {
		panic(err)
	}
	return c.sign(fmt.Sprintf("%s\n%d\n%v\n", signer.Name(), size, root), signer)
}

func (c *check) sign(text string, signer note.Signer) []byte {
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		panic(err)
	}
	return signed
}

func proof(branch string, old, size int64) []string {
	if old <= 0 || old > size {
		return nil
	}
	hashes, err := tlog.ProveTree(size, old, grow(branch, size))
	if err != nil {
		panic(err)
	}
	var lines []string
	for _, hash := range hashes {
		lines = append(lines, hash.String())
	}
	return lines
}

func request(old int64, proof []string, checkpoint []byte) []byte {
	head := append([]string{fmt.Sprintf("old %d", old)}, proof...)
	return append([]byte(strings.Join(head, "\n")+"\n\n"), checkpoint...)
}

func (c *check) post(body []byte) (int, string, string) {
	response, err := http.Post(c.url+"/add-checkpoint", "text/plain", bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		panic(err)
	}
	return response.StatusCode, response.Header.Get("Content-Type"), string(answer)
}

func (c *check) want(what string, status int, body []byte) string {
	got, kind, answer := c.post(body)
	if got != status {
		panic(fmt.Errorf("%s: %d %q, not %d", what, got, answer, status))
	}
	if status == http.StatusConflict && kind != "text/x.tlog.size" {
		panic(fmt.Errorf("%s: 409 of type %q", what, kind))
	}
	c.answers++
	return answer
}

func (c *check) conflict(what string, size int64, body []byte) {
	if answer := c.want(what, http.StatusConflict, body); answer != strconv.FormatInt(size, 10)+"\n" {
		panic(fmt.Errorf("%s: 409 %q, not %d", what, answer, size))
	}
}

// Submits what must be cosigned, and verifies log and witness on the result.
func (c *check) cosigned(what, branch string, old, size int64) {
	checkpoint := c.checkpoint(branch, size, c.signer)
	lines := c.want(what, http.StatusOK, request(old, proof(branch, old, size), checkpoint))
	c.open(what, append(append([]byte{}, checkpoint...), lines...), size)
	sum := sha256.Sum256([]byte(c.origin))
	response, err := http.Get(c.url + "/" + hex.EncodeToString(sum[:]) + "/checkpoint")
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	shown, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		panic(fmt.Errorf("%s: it is not shown: %s", what, response.Status))
	}
	c.open(what+", as shown", shown, size)
}

func (c *check) open(what string, data []byte, size int64) {
	opened, err := note.Open(data, note.VerifierList(c.verifier, c.witness))
	if err != nil {
		panic(fmt.Errorf("%s: %w", what, err))
	}
	names := map[string]bool{}
	for _, signature := range opened.Sigs {
		names[signature.Name] = true
	}
	if !names[c.origin] || !names[c.witness.name] {
		panic(fmt.Errorf("%s: signed by %v", what, names))
	}
	if strings.Split(opened.Text, "\n")[1] != strconv.FormatInt(size, 10) {
		panic(fmt.Errorf("%s: not %d entries", what, size))
	}
}

func (c *check) run(stranger note.Signer) {
	good := func(branch string, old, size int64) []byte {
		return request(old, proof(branch, old, size), c.checkpoint(branch, size, c.signer))
	}
	c.cosigned("first contact", "a", 0, 5)
	c.conflict("unknown old size", 5, good("a", 0, 9))
	c.cosigned("growth", "a", 5, 9)
	c.cosigned("the same again", "a", 9, 9)
	c.cosigned("much growth", "a", 9, 300)
	c.conflict("rollback", 300, good("a", 5, 9))
	c.conflict("rollback to the start", 300, good("a", 0, 5))
	c.want("rollback with the right old size", 400, good("a", 300, 9))
	c.want("fork at the same size", 422, good("b", 300, 300))
	c.want("fork that has grown", 422, good("b", 300, 301))
	c.conflict("fork from the start", 300, good("b", 0, 400))
	next := c.checkpoint("a", 301, c.signer)
	right := proof("a", 300, 301)
	c.want("no proof", 422, request(300, nil, next))
	c.want("a hash too many", 422, request(300, append(right[:len(right):len(right)], right[0]), next))
	c.want("too many hashes", 400, request(300, strings.Split(strings.Repeat(right[0]+" ", 64), " ")[:64], next))
	c.want("a leading zero", 400, append([]byte("old 0300\n\n"), next...))
	c.want("not a request", 400, next)
	c.want("a stranger's log", 404, request(0, nil, c.checkpoint("a", 5, stranger)))
	root, _ := tlog.TreeHash(301, grow("a", 301))
	text := fmt.Sprintf("%s\n301\n%v\n", c.origin, root)
	c.want("a stranger's signature", 403, request(300, right, c.sign(text, stranger)))
	broken := bytes.Replace(next, []byte("\n301\n"), []byte("\n302\n"), 1)
	c.want("an edited checkpoint", 403, request(300, right, broken))
	c.cosigned("after all that", "a", 300, 301)
}

func main() {
	vkey := flag.String("witness", "", "the witness's verifier key")
	logKey := flag.String("log", "", "the log's private key")
	strangerKey := flag.String("stranger", "", "another log's private key")
	verifierKey := flag.String("logvkey", "", "the log's verifier key")
	flag.Parse()
	defer func() {
		if failure := recover(); failure != nil {
			fmt.Fprintln(os.Stderr, "witnesscheck:", failure)
			os.Exit(1)
		}
	}()
	signer, err := note.NewSigner(*logKey)
	if err != nil {
		panic(err)
	}
	stranger, err := note.NewSigner(*strangerKey)
	if err != nil {
		panic(err)
	}
	verifier, err := note.NewVerifier(*verifierKey)
	if err != nil {
		panic(err)
	}
	witness, err := newCosignature(*vkey)
	if err != nil {
		panic(err)
	}
	c := &check{url: strings.TrimSuffix(flag.Arg(0), "/"), origin: signer.Name(), signer: signer, verifier: verifier, witness: witness}
	c.run(stranger)
	fmt.Printf("ok: %d answers of %s\n", c.answers, witness.name)
}
