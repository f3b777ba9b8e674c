package function_test

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tdewolff/parse/v2"
	"github.com/tdewolff/parse/v2/js"
)

// What runtime cloudfront-js-2.0 has and function.js may use, according to
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/functions-javascript-runtime-20.html
// Left out although it is there: clock, chance, logs, promises that are not awaited, all modules but "cloudfront",
// and of that all but reading values.
const (
	allowedGlobals = `Array Boolean JSON Math Number Object RegExp String
		Infinity NaN decodeURI decodeURIComponent encodeURI encodeURIComponent isFinite isNaN parseFloat parseInt undefined`
	allowedMethods = `assign entries freeze keys values hasOwnProperty
		fromCharCode fromCodePoint charAt charCodeAt codePointAt concat endsWith includes indexOf lastIndexOf match padEnd padStart
		repeat replace replaceAll search slice split startsWith substr substring toLowerCase toUpperCase trim trimEnd trimStart
		isArray every fill filter find findIndex forEach join map pop push reduce reduceRight reverse shift some sort splice unshift
		isInteger isSafeInteger toFixed toString abs ceil floor max min pow round sign trunc
		exec test parse stringify rawQueryString kvs get`
)

// faults says what of a source the runtime does not document, or may not end. DOCS is as in function.js.
func faults(source string) []string {
	ast, err := js.Parse(parse.NewInputString(source), js.Options{})
	if err != nil {
		return []string{"no JavaScript: " + err.Error()}
	}
	c := &checker{calls: make(map[string][]string), same: make(map[string]int), plain: make(map[js.INode]bool)}
	js.Walk(c, ast)
	for _, v := range ast.Undeclared {
		if !slices.Contains(strings.Fields(allowedGlobals), string(v.Name())) && !(c.imported && string(v.Name()) == "cf") {
			c.fault("the global %s", v.Name())
		}
	}
	c.checkRecursion()
	c.checkShorthand(source)
	return c.faults
}

// checker visits every node of a program. Unknown kinds of nodes are faults.
type checker struct {
	faults []string
	calls  map[string][]string // top-level function -> names that it has
	same   map[string]int      // name -> properties of that name whose value is the variable of that name
	plain  map[js.INode]bool   // async functions of the top level, and their awaits that are a declaration's whole value
	// imported: there is cf.
	imported bool
}

func (c *checker) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

func (c *checker) Exit(js.INode) {}

func (c *checker) Enter(node js.INode) js.IVisitor {
	switch n := node.(type) {
	case *js.AST:
		c.listCalls(n)
		for _, s := range n.List {
			if f, ok := s.(*js.FuncDecl); ok && f.Async {
				c.plain[f] = true
				js.Walk(awaits{c.plain}, &f.Body)
			}
		}
	case *js.ImportStmt:
		if clause := string(n.Default); clause != "cf" || n.List != nil || strings.Trim(string(n.Module), `"'`) != "cloudfront" {
			c.fault("the import %s", n.Module)
			break
		}
		c.imported = true
	case *js.BlockStmt, *js.EmptyStmt, *js.ExprStmt, *js.IfStmt, *js.SwitchStmt, *js.CaseClause, *js.ReturnStmt, *js.ThrowStmt,
		*js.PropertyName, *js.Args, *js.ObjectExpr, *js.ArrayExpr, *js.GroupExpr, *js.CondExpr, *js.NewExpr, *js.CommaExpr, *js.TemplatePart, *js.Var:
	case *js.BranchStmt:
		if n.Label != nil {
			c.fault("a label")
		}
	case *js.ForStmt:
		c.checkLoop(n)
	case *js.TryStmt:
		if n.Catch != nil && n.Binding == nil {
			c.fault("catch without a binding")
		}
	case *js.VarDecl:
		if !slices.Contains([]js.TokenType{js.VarToken, js.LetToken, js.ConstToken}, n.TokenType) {
			c.fault("declaration with %s", n.TokenType)
		}
	case *js.BindingElement:
		if _, ok := n.Binding.(*js.Var); !ok {
			c.fault("destructuring")
		}
	case *js.Params:
		for _, p := range n.List {
			if p.Default != nil {
				c.fault("a default parameter")
			}
		}
	case *js.FuncDecl:
		// DOCS/async-await-syntax.html: "async arguments and closures are not supported."
		if n.Async && !c.plain[n] {
			c.fault("an async function in another")
		}
		if n.Generator {
			c.fault("a generator")
		}
	case *js.ArrowFunc:
		if n.Async {
			c.fault("an async function")
		}
	case *js.TemplateExpr:
		if n.Tag != nil {
			c.fault("a tagged template")
		}
	case js.LiteralExpr: // behind a dot; checkDot has seen it
	case *js.LiteralExpr:
		c.checkLiteral(n)
	case *js.Element:
		if n.Spread {
			c.fault("spread")
		}
	case *js.Arg:
		if n.Rest {
			c.fault("spread")
		}
	case *js.Property:
		c.checkProperty(n)
	case *js.IndexExpr:
		if n.Optional {
			c.fault("optional chaining")
		}
	case *js.DotExpr:
		c.checkDot(n)
	case *js.CallExpr:
		if n.Optional {
			c.fault("optional chaining")
		}
		if dot, ok := n.X.(*js.DotExpr); ok && !slices.Contains(strings.Fields(allowedMethods), nameOf(dot.Y)) {
			c.fault("the method %s", nameOf(dot.Y))
		}
	case *js.UnaryExpr:
		if n.Op == js.AwaitToken && !c.plain[n] {
			c.fault("await within an expression")
		}
	case *js.BinaryExpr:
		if slices.Contains([]js.TokenType{js.NullishToken, js.NullishEqToken, js.AndEqToken, js.OrEqToken}, n.Op) {
			c.fault("the operator %s", n.Op)
		}
	default:
		c.fault("%s", strings.TrimPrefix(reflect.TypeOf(node).String(), "*js."))
	}
	return c
}

// awaits marks the awaits of an async function that are the whole value of a declaration.
type awaits struct{ plain map[js.INode]bool }

func (awaits) Exit(js.INode) {}

func (a awaits) Enter(node js.INode) js.IVisitor {
	switch n := node.(type) {
	case *js.FuncDecl, *js.ArrowFunc:
		return nil
	case *js.BindingElement:
		if await, ok := n.Default.(*js.UnaryExpr); ok && await.Op == js.AwaitToken {
			a.plain[await] = true
		}
	}
	return a
}

// listCalls lists the names that each top-level function has in its body.
func (c *checker) listCalls(program *js.AST) {
	for _, s := range program.List {
		if f, ok := s.(*js.FuncDecl); ok {
			names := &nameCollector{}
			js.Walk(names, &f.Body)
			c.calls[string(f.Name.Name())] = names.all
		}
	}
}

// nameCollector lists the variables below a node.
type nameCollector struct{ all []string }

func (n *nameCollector) Exit(js.INode) {}

func (n *nameCollector) Enter(node js.INode) js.IVisitor {
	if v, ok := node.(*js.Var); ok {
		n.all = append(n.all, string(v.Name()))
	}
	return n
}

var (
	// Lookbehind, \p{}, \k<>, named groups: beyond ES 5.1. PCRE, behind the runtime, reads [^] and [] in its own way.
	modernRegexp = regexp.MustCompile(`\(\?<|\\[pPkKu]\{?|\[\^?\]`)
	flags        = regexp.MustCompile(`/[gim]*$`)
)

func (c *checker) checkLiteral(n *js.LiteralExpr) {
	switch {
	case n.TokenType == js.RegExpToken && (modernRegexp.Match(n.Data) || !flags.Match(n.Data)):
		c.fault("the regular expression %s", n.Data)
	case js.IsNumeric(n.TokenType) && bytes.HasSuffix(n.Data, []byte("n")):
		c.fault("the big integer %s", n.Data)
	case n.TokenType == js.BinaryToken || n.TokenType == js.OctalToken:
		c.fault("the number %s", n.Data)
	case n.TokenType == js.SuperToken || n.TokenType == js.ThisToken || n.TokenType == js.ImportToken:
		c.fault("%s", n.Data)
	}
}

func (c *checker) checkProperty(n *js.Property) {
	_, method := n.Value.(*js.MethodDecl)
	switch {
	case n.Spread:
		c.fault("spread")
	case method:
		c.fault("a method in an object")
	case n.Init != nil || n.Name == nil:
		c.fault("a shorthand property")
	case n.Name.IsComputed():
		c.fault("a computed property")
	}
	if v, ok := n.Value.(*js.Var); ok && n.Name != nil && string(n.Name.Literal.Data) == string(v.Name()) {
		c.same[string(v.Name())]++
	}
}

// checkShorthand counts: {x} is parsed as {x: x} is, but only the latter has a colon in the source.
func (c *checker) checkShorthand(source string) {
	for name, n := range c.same {
		if len(regexp.MustCompile(`\b`+regexp.QuoteMeta(name)+`['"]?\s*:\s*`+regexp.QuoteMeta(name)+`\b`).FindAllString(source, -1)) < n {
			c.fault("a shorthand property %s", name)
		}
	}
}

func (c *checker) checkDot(n *js.DotExpr) {
	if n.Optional {
		c.fault("optional chaining")
	}
	if name := nameOf(n.Y); slices.Contains([]string{"constructor", "prototype", "__proto__", "random"}, name) || strings.HasPrefix(name, "#") {
		c.fault("the property %s", name)
	}
}

func nameOf(e js.IExpr) string {
	switch n := e.(type) {
	case *js.LiteralExpr:
		return string(n.Data)
	case js.LiteralExpr:
		return string(n.Data)
	case *js.Var:
		return string(n.Name())
	}
	return ""
}

// checkLoop wants a loop to count towards a border: for (...; i < border; i++), where the border and i are
// not assigned to in the body. What stands behind && can only end it earlier.
func (c *checker) checkLoop(n *js.ForStmt) {
	cond := n.Cond
	for {
		and, ok := cond.(*js.BinaryExpr)
		if !ok || and.Op != js.AndToken {
			break
		}
		cond = and.X
	}
	test, ok := cond.(*js.BinaryExpr)
	step, counts := n.Post.(*js.UnaryExpr)
	if !ok || !counts {
		c.fault("a loop that does not count")
		return
	}
	counter, border := nameOf(step.X), test.Y
	up := (step.Op == js.PostIncrToken || step.Op == js.PreIncrToken) && (test.Op == js.LtToken || test.Op == js.LtEqToken)
	down := (step.Op == js.PostDecrToken || step.Op == js.PreDecrToken) && (test.Op == js.GtToken || test.Op == js.GtEqToken)
	if counter == "" || nameOf(test.X) != counter || !up && !down {
		c.fault("a loop that does not count towards its border")
	}
	w := &writes{}
	js.Walk(w, n.Body)
	borderNames := &nameCollector{}
	js.Walk(borderNames, border)
	if slices.Contains(w.names, counter) || slices.ContainsFunc(borderNames.all, func(b string) bool { return slices.Contains(w.names, b) }) {
		c.fault("a loop that changes what it counts")
	}
}

// writes lists the variables that are assigned to, or grow, below a node.
type writes struct{ names []string }

func (w *writes) Exit(js.INode) {}

func (w *writes) Enter(node js.INode) js.IVisitor {
	switch n := node.(type) {
	case *js.BinaryExpr:
		if assigns(n.Op) {
			w.names = append(w.names, nameOf(n.X))
		}
	case *js.UnaryExpr:
		if n.Op == js.PreIncrToken || n.Op == js.PreDecrToken || n.Op == js.PostIncrToken || n.Op == js.PostDecrToken {
			w.names = append(w.names, nameOf(n.X))
		}
	case *js.CallExpr:
		if dot, ok := n.X.(*js.DotExpr); ok && slices.Contains([]string{"push", "unshift", "splice"}, nameOf(dot.Y)) {
			w.names = append(w.names, nameOf(dot.X))
		}
	}
	return w
}

func assigns(op js.TokenType) bool {
	return slices.Contains([]js.TokenType{
		js.EqToken, js.AddEqToken, js.SubEqToken, js.MulEqToken, js.DivEqToken, js.ModEqToken, js.ExpEqToken, js.LtLtEqToken,
		js.GtGtEqToken, js.GtGtGtEqToken, js.BitAndEqToken, js.BitOrEqToken, js.BitXorEqToken,
	}, op)
}

// checkRecursion refuses top-level functions that reach themselves.
func (c *checker) checkRecursion() {
	for start := range c.calls {
		seen := map[string]bool{}
		queue := slices.Clone(c.calls[start])
		for len(queue) > 0 {
			name := queue[0]
			queue = queue[1:]
			if seen[name] {
				continue
			}
			seen[name] = true
			queue = append(queue, c.calls[name]...)
		}
		if seen[start] {
			c.fault("recursion in %s", start)
		}
	}
}

func TestLanguage(t *testing.T) {
	for name, source := range functions() {
		for kind, text := range map[string][]byte{"": source, "packed ": packed(t, name)} {
			for _, f := range faults(string(text)) {
				t.Errorf("%s%s has %s", kind, name, f)
			}
			if !regexp.MustCompile(`(^|[\n;}])(async )?function handler\(event\) ?\{`).Match(text) {
				t.Errorf("%s%s has no function handler(event)", kind, name)
			}
		}
	}
}

// The check finds what it is there for.
func TestLanguageCheck(t *testing.T) {
	for source, want := range map[string]string{
		"const fs = require('fs')":           "the global require",
		"import('x')":                        "",
		"export const x = 1":                 "ExportStmt",
		"eval('1')":                          "the global eval",
		"const f = new Function('return 1')": "the global Function",
		"const f = (function () {}).constructor('return 1')": "the property constructor",
		"class A {}":                "ClassDecl",
		"const A = class {}":        "ClassDecl",
		"function* f() { yield 1 }": "generator",
		"async function f() { await g() } function g() {}": "await",
		"const f = async () => 1":                          "async",
		"setTimeout(1)":                                    "the global setTimeout",
		"const n = Date.now()":                             "the global Date",
		"const n = new Date()":                             "the global Date",
		"const n = Math.random()":                          "the property random",
		"Promise.resolve(1)":                               "the global Promise",
		"fetch('x')":                                       "the global fetch",
		"Buffer.from('x')":                                 "the global Buffer",
		"crypto.createHash('md5')":                         "the global crypto",
		"console.log('x')":                                 "the global console",
		"process.exit()":                                   "the global process",
		"const m = new Map()":                              "the global Map",
		"const s = unescape('x')":                          "the global unescape",
		"const r = /(?<=a)b/":                              "the regular expression",
		"const r = /(?<!a)b/":                              "the regular expression",
		"const r = /(?<name>a)/":                           "the regular expression",
		`const r = /\p{L}/u`:                               "the regular expression",
		"const r = /a/u":                                   "the regular expression",
		"const r = /a/s":                                   "the regular expression",
		"const r = /a/y":                                   "the regular expression",
		"const r = /[^]/":                                  "the regular expression",
		"const x = {}; x?.y":                               "optional chaining",
		"const x = {}; x?.()":                              "optional chaining",
		"const x = {}; x?.[0]":                             "optional chaining",
		"const x = 1 ?? 2":                                 "the operator ??",
		"let x = 1; x ??= 2":                               "the operator ??=",
		"let x = 1; x ||= 2":                               "the operator ||=",
		"const [a] = [1]":                                  "destructuring",
		"const {a} = {a: 1}":                               "destructuring",
		"function f({a}) {}":                               "destructuring",
		"function f(a = 1) {}":                             "a default parameter",
		"const a = [...'x']":                               "spread",
		"String.fromCharCode(...[1])":                      "spread",
		"const a = {...{}}":                                "spread",
		"const a = 1; const b = {a}":                       "a shorthand property",
		"const b = {a() {}}":                               "a method in an object",
		"const b = {get a() { return 1 }}":                 "a method in an object",
		"const a = 'x'; const b = {[a]: 1}":                "a computed property",
		"const n = 1n":                                     "the big integer",
		"const n = 0b1":                                    "the number",
		"const n = 0o1":                                    "the number",
		"'x'.matchAll(/x/g)":                               "the method matchAll",
		"'x'.at(0)":                                        "the method at",
		"[1].flat()":                                       "the method flat",
		"Object.fromEntries([])":                           "the method fromEntries",
		"try { } catch { }":                                "catch without a binding",
		"for (const c of 'x') { }":                         "ForOfStmt",
		"for (const c in {}) { }":                          "ForInStmt",
		"while (true) { }":                                 "WhileStmt",
		"do { } while (true)":                              "DoWhileStmt",
		"with ({}) { }":                                    "WithStmt",
		"debugger":                                         "DebuggerStmt",
		"for (;;) { }":                                     "a loop that does not count",
		"for (let i = 0; ; i++) { }":                       "a loop that does not count",
		"for (let i = 0; i < 9;) { }":                      "a loop that does not count",
		"for (let i = 0; i < 9; i += 1) { }":               "a loop that does not count",
		"for (let i = 0; i < 9; i--) { }":                  "towards its border",
		"for (let i = 0; i !== 9; i++) { }":                "towards its border",
		"for (let i = 0, j = 0; i < 9; j++) { }":           "towards its border",
		"for (let i = 0; i < 9 || true; i++) { }":          "towards its border",
		"for (let i = 0; i < 9; i++) { i = 0; }":           "changes what it counts",
		"for (let i = 0; i < 9; i++) { if (i) { i--; } }":  "changes what it counts",
		"let n = 9; for (let i = 0; i < n; i++) { n++; }":  "changes what it counts",
		"const a = [1]; for (let i=0; i<a.length; i++) a.push(1)":         "changes what it counts",
		"function f() { return f(); }":                                    "recursion in f",
		"function f() { return g(); } function g() { f(); }":              "recursion in f",
		"function f() { [1].map(g); } function g() { f(); }":              "recursion in g",
		"tag`x`; function tag() {}":                                       "a tagged template",
		"import fs from 'fs';":                                            "the import 'fs'",
		"import cf from 'cloudfront.js';":                                 "the import 'cloudfront.js'",
		"import other from 'cloudfront';":                                 "the import 'cloudfront'",
		"import * as cf from 'cloudfront';":                               "the import 'cloudfront'",
		"import { kvs } from 'cloudfront';":                               "the import 'cloudfront'",
		"import cf, { kvs } from 'cloudfront';":                           "the import 'cloudfront'",
		"import 'cloudfront';":                                            "the import 'cloudfront'",
		"const f = import('cloudfront');":                                 "import",
		"import cf from 'cloudfront'; cf.edgeLocation();":                 "the method edgeLocation",
		"function f(kvs) { kvs.exists('x'); }":                            "the method exists",
		"export function handler(event) {}":                               "ExportStmt",
		"async function f(g) { return await g(); }":                       "await within an expression",
		"async function f(g) { g(await g()); }":                           "await within an expression",
		"async function f(g) { const a = 1 + await g(); }":                "await within an expression",
		"async function f(g) { for (let i = 0; i < await g(); i++) { } }": "await within an expression",
		"async function f() { for await (const x of []) { } }":            "ForOfStmt",
		"function f() { async function g() { } }":                         "an async function in another",
		"const f = async function () { };":                                "an async function in another",
		"async function* f() { }":                                         "a generator",
		"const f = await 1; ":                                             "await within an expression",
		"function f() { return this; }":                                   "this",
		"const a = 1; a.#b":                                               "",
		"function (":                                                      "no JavaScript",
	} {
		got := strings.Join(faults(source), "; ")
		if got == "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
	for _, source := range []string{
		"function f(a, b) { const c = { x: a, 'y-z': b, a: a }; let d = c.x; d = d ? [1, 2] : `a${b}`; delete c['x']; return typeof d; }",
		"const r = /[^a-z]{2}(?:x|y)(?!z)$/g; try { r.test('x'); } catch (e) { throw e; }",
		"function f(s) { for (let i = 0; i < s.length && s[i] !== ' '; i++) { s.charAt(i); } for (let j = 9; j > 0; j--) { continue; } }",
		"const f = function (v) { return v.value; }; const g = (x) => x ** 2;",
		"import cf from 'cloudfront'; async function f() { try { const a = await cf.kvs().get('x'); return a; } catch (e) { } }",
		"import cf from\"cloudfront\";async function f(){let a=await g()}async function g(){return f2()}function f2(){}",
		"function f(x) { switch (x) { case 1: return 0x0f; default: return new RegExp('x'); } }",
	} {
		for _, f := range faults(source) {
			t.Errorf("%s has %s", source, f)
		}
	}
}
