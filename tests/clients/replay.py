#!/usr/bin/env python3
"""Replays recorded graphite-web answers against a server and compares.

    replay.py --base-url http://127.0.0.1:PORT [--seed --seed-dir DIR] render-cases.jsonl

Standard library only. Numbers are equal within 1e-9 relative or 1e-12 absolute; objects have the
same keys in any order; lists the same length and order unless the case says otherwise. A recorded
500 is met by any status from 400 on. Ends with 'N passed, N failed'; exit status 1 on failure.
"""
import argparse
import base64
import collections
import gzip
import http.client
import io
import json
import math
import os
import pickle
import re
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlencode, urlsplit

REL = 1e-9
ABS = 1e-12
RUN = '{{run}}'


# ---------------------------------------------------------------- HTTP

def request(base, method, path, query, body=None, ctype=None, headers=None, timeout=30):
    u = urlsplit(base)
    if isinstance(query, str):
        qs = query
    else:
        qs = urlencode([tuple(p) for p in query])
    url = (u.path.rstrip('/') if u.path != '/' else '') + quote(path, safe="/%:;=~!*'(),.-_") + ('?' + qs if qs else '')
    conn = http.client.HTTPConnection(u.hostname, u.port or 80, timeout=timeout)
    try:
        h = dict(headers or {})
        data = body.encode('utf8') if isinstance(body, str) else body
        if ctype:
            h['Content-Type'] = ctype
        conn.request(method, url, body=data, headers=h)
        r = conn.getresponse()
        raw = r.read()
        return r.status, r.getheader('Content-Type') or '', raw
    finally:
        conn.close()



def fill(x, nonce):
    if isinstance(x, str):
        return x.replace(RUN, nonce)
    if isinstance(x, list):
        return [fill(y, nonce) for y in x]
    return x


def ask(base, part, nonce):
    return request(base, part['method'], fill(part['path'], nonce), fill(part.get('query') or [], nonce),
                        fill(part.get('body'), nonce), part.get('request_content_type'), part.get('headers'))


# ---------------------------------------------------------------- decoding

class _Stub(object):
    """Stands for any class met in a pickle."""

    def __init__(self, *a):
        self.args = a

    def __setstate__(self, st):
        self.__dict__.update(st if isinstance(st, dict) else {'state': st})


def _plain(x):
    if isinstance(x, _Stub):
        d = x.__dict__
        if 'intervals' in d:
            return [_plain(i) for i in d['intervals']]
        if 'start' in d and 'end' in d:
            return [_plain(d['start']), _plain(d['end'])]
        if 'data' in d:
            return _plain(d['data'])
        if 'tuple' in d:
            return _plain(d['tuple'])
        return {k: _plain(v) for k, v in d.items() if k != 'args'}
    if isinstance(x, dict):
        return {(_plain(k) if not isinstance(k, bytes) else k.decode('utf8')): _plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(y) for y in x]
    if isinstance(x, bytes):
        return x.decode('utf8', 'replace')
    return x


class SafeUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        return type(name, (_Stub,), {})


def unpickle(raw):
    return _plain(SafeUnpickler(io.BytesIO(raw), encoding='utf8').load())


def unmsgpack(raw):
    pos = [0]

    def take(n):
        b = raw[pos[0]:pos[0] + n]
        if len(b) != n:
            raise ValueError('msgpack ends early')
        pos[0] += n
        return b

    def num(fmt, n):
        return struct.unpack('>' + fmt, take(n))[0]

    def arr(n):
        return [one() for _ in range(n)]

    def mp(n):
        return {one(): one() for _ in range(n)}

    def one():
        t = take(1)[0]
        if t < 0x80:
            return t
        if t < 0x90:
            return mp(t & 15)
        if t < 0xa0:
            return arr(t & 15)
        if t < 0xc0:
            return take(t & 31).decode('utf8')
        if t >= 0xe0:
            return t - 256
        if t == 0xc0:
            return None
        if t in (0xc2, 0xc3):
            return t == 0xc3
        if t in (0xc4, 0xc5, 0xc6):
            return take(num('BHI'[t - 0xc4], 1 << (t - 0xc4))).decode('utf8', 'replace')
        if t == 0xca:
            return num('f', 4)
        if t == 0xcb:
            return num('d', 8)
        if 0xcc <= t <= 0xcf:
            return num('BHIQ'[t - 0xcc], 1 << (t - 0xcc))
        if 0xd0 <= t <= 0xd3:
            return num('bhiq'[t - 0xd0], 1 << (t - 0xd0))
        if 0xd9 <= t <= 0xdb:
            return take(num('BHI'[t - 0xd9], 1 << (t - 0xd9))).decode('utf8')
        if t in (0xdc, 0xdd):
            return arr(num('HI'[t - 0xdc], 2 << (t - 0xdc)))
        if t in (0xde, 0xdf):
            return mp(num('HI'[t - 0xde], 2 << (t - 0xde)))
        raise ValueError('msgpack type %#x' % t)

    v = one()
    if pos[0] != len(raw):
        raise ValueError('msgpack has %d more bytes' % (len(raw) - pos[0]))
    return v


def finite(x):
    """JSON has no infinities: they are kept as the strings '1e9999', '-1e9999' and 'NaN'."""
    if isinstance(x, float):
        if math.isinf(x):
            return '1e9999' if x > 0 else '-1e9999'
        if math.isnan(x):
            return 'NaN'
        return x
    if isinstance(x, dict):
        return {k: finite(v) for k, v in x.items()}
    if isinstance(x, list):
        return [finite(v) for v in x]
    return x


def jsonp(text):
    m = re.match(r'^\s*([\w.$]+)\((.*)\)\s*;?\s*$', text, re.S)
    if not m:
        raise ValueError('not a JSONP answer')
    return {'callback': m.group(1), 'json': json.loads(m.group(2))}


def kind_of(ctype, part):
    main = (ctype or '').split(';')[0].strip()
    q = part.get('query')
    fmt = dict((k, v) for k, v in q).get('format') if isinstance(q, list) else None
    if main == 'application/json':
        return 'json'
    if main == 'text/javascript':
        return 'jsonp'
    if main == 'application/pickle':
        return 'pickle'
    if main == 'application/x-msgpack':
        return 'msgpack'
    if main == 'text/csv':
        return 'csv'
    if main.startswith('image/') or main == 'application/x-pdf':
        return 'type'
    if main == 'text/plain' and (fmt == 'raw' or part.get('path', '').startswith('/render')):
        return 'raw'
    return 'text'


def decode(kind, raw, nonce=None):
    if kind == 'pickle':
        return finite(unpickle(raw))
    if kind == 'msgpack':
        return finite(_plain(unmsgpack(raw)))
    if kind == 'type':
        return None
    text = raw.decode('utf8')
    if nonce:
        text = text.replace(nonce, RUN)
    if kind in ('json', 'json-unordered', 'schema'):
        return finite(json.loads(text))
    if kind == 'jsonp':
        return finite(jsonp(text))
    return text


def store(part, kind, raw, nonce):
    part['answer'] = strip(decode(kind, raw, nonce), part.get('ignore'))
    if kind in ('pickle', 'msgpack'):
        part['answer_base64'] = base64.b64encode(raw).decode()


def strip(x, keys):
    if not keys:
        return x
    if isinstance(x, dict):
        return {k: strip(v, keys) for k, v in x.items() if k not in keys}
    if isinstance(x, list):
        return [strip(v, keys) for v in x]
    return x


# ---------------------------------------------------------------- comparing

def same_number(a, b):
    if a == b:
        return True
    return abs(a - b) <= max(REL * max(abs(a), abs(b)), ABS)


def is_number(x):
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def differ(want, got, where='', unordered=False):
    """None when equal, else a line that says where and how."""
    if is_number(want) and is_number(got):
        return None if same_number(want, got) else '%s: want %r, got %r' % (where, want, got)
    if want == 'NaN' and got is None:
        return None
    if isinstance(want, dict) and isinstance(got, dict):
        for k in want:
            if k not in got:
                return '%s: key %r is missing' % (where, k)
        for k in got:
            if k not in want:
                return '%s: unexpected key %r' % (where, k)
        for k in want:
            d = differ(want[k], got[k], '%s.%s' % (where, k), unordered)
            if d:
                return d
        return None
    if isinstance(want, list) and isinstance(got, list):
        if len(want) != len(got):
            return '%s: want %d items, got %d' % (where, len(want), len(got))
        if unordered and want and not any(isinstance(x, (list, int, float)) or x is None for x in want):
            left = list(got)
            for i, w in enumerate(want):
                for j, g in enumerate(left):
                    if differ(w, g, '', True) is None:
                        del left[j]
                        break
                else:
                    return '%s[%d]: nothing equals %s' % (where, i, json.dumps(w)[:200])
            return None
        for i, (w, g) in enumerate(zip(want, got)):
            d = differ(w, g, '%s[%d]' % (where, i), unordered)
            if d:
                return d
        return None
    if type(want) is type(got) and want == got:
        return None
    return '%s: want %s, got %s' % (where, json.dumps(want)[:160], json.dumps(got)[:160])


def differ_tokens(want, got, sep):
    a, b = re.split(sep, want.replace('\r\n', '\n').rstrip('\n')), re.split(sep, got.replace('\r\n', '\n').rstrip('\n'))
    for i, (x, y) in enumerate(zip(a, b)):
        if x == y:
            continue
        try:
            if same_number(float(x), float(y)):
                continue
        except ValueError:
            pass
        return 'token %d: want %r, got %r' % (i, x[:80], y[:80])
    if len(a) != len(b):
        return 'want %d tokens, got %d' % (len(a), len(b))
    return None


def differ_schema(want, got):
    """Random answers: the same series with the same timestamps, and a number or null at each."""
    if not isinstance(got, list) or len(want) != len(got):
        return 'not the same number of series'
    for w, g in zip(want, got):
        if w['target'] != g.get('target'):
            return 'want target %r, got %r' % (w['target'], g.get('target'))
        if [p[1] for p in w['datapoints']] != [p[1] for p in g['datapoints']]:
            return 'other timestamps'
        if not all(p[0] is None or is_number(p[0]) for p in g['datapoints']):
            return 'a value that is no number'
    return None


def check_part(base, part, nonce, strict=False):
    try:
        status, ctype, raw = ask(base, part, nonce)
    except Exception as e:
        return 'no answer: %r' % e
    want = part['status']
    if status != want:
        if not strict and want == 500 and (part.get('crash') or 400 <= status < 600):
            return None
        return 'want status %d, got %d %s' % (want, status, raw[:120].decode('utf8', 'replace') if status < 500 else '')
    kind = part.get('compare', 'json')
    if kind == 'status':
        return None
    if kind == 'error':
        try:
            got = json.loads(raw.decode('utf8'))
        except ValueError:
            return 'the answer is not JSON: it begins %r' % raw[:80]
        return None if isinstance(got, dict) and 'error' in got else 'want an object with "error", got %r' % raw[:120]
    a, b = (part.get('content_type') or '').split(';')[0].strip(), ctype.split(';')[0].strip()
    if a != b:
        return 'want content type %r, got %r' % (a, b)
    try:
        got = strip(decode(kind, raw, nonce), part.get('ignore'))
    except Exception as e:
        return 'the answer is not %s: %s; it begins %r' % (kind, e, raw[:80])
    exp = part.get('answer')
    if kind == 'type':
        return None if raw or want != 200 else 'an empty body'
    if kind == 'schema':
        return differ_schema(exp, got)
    if kind == 'csv':
        return differ_tokens(exp, got, r'[,\n]')
    if kind == 'raw':
        return differ_tokens(exp, got, r'[,|\n]')
    if kind == 'text':
        return None if exp == got else 'want %r, got %r' % (exp[:160], got[:160])
    return differ(exp, got, '', unordered=(kind == 'json-unordered' or bool(part.get('unordered'))))


def check(base, case, nonce, strict=False):
    """None when the server answers the case as recorded, else a line that says how not."""
    if 'steps' in case:
        for i, part in enumerate(case['steps']):
            why = check_part(base, part, nonce, strict)
            if why:
                return 'step %d (%s %s): %s' % (i + 1, part['method'], part['path'], why)
        return None
    return check_part(base, case, nonce, strict)


# ---------------------------------------------------------------- command line

def show(case):
    p = case['steps'][0] if 'steps' in case else case
    q = p['query'] if isinstance(p['query'], str) else '&'.join('%s=%s' % (k, v) for k, v in p['query'])
    return '%s %s%s' % (p['method'], p['path'], '?' + q if q else '')


def load(path):
    op = gzip.open if path.endswith('.gz') else open
    with op(path, 'rt', encoding='utf8') as fh:
        return [json.loads(line) for line in fh if line.strip()]


def seed(base, folder):
    with open(os.path.join(folder, 'tags.json'), encoding='utf8') as fh:
        tags = json.load(fh)
    with open(os.path.join(folder, 'events.json'), encoding='utf8') as fh:
        events = json.load(fh)
    status, _, raw = request(base, 'POST', '/tags/tagMultiSeries', [], urlencode([('path', t) for t in tags]),
                                  'application/x-www-form-urlencoded')
    if status != 200:
        sys.exit('seeding tags: status %d %s' % (status, raw[:200]))
    first = min(e['when'] for e in events)
    last = max(e['when'] for e in events)
    status, _, raw = request(base, 'GET', '/events/get_data', [('from', str(int(first) - 1)), ('until', str(int(last) + 1))])
    have = {e['what'] for e in json.loads(raw)} if status == 200 else set()
    n = 0
    if not have & {e['what'] for e in events}:
        for e in events:
            status, _, raw = request(base, 'POST', '/events/', [], json.dumps(e), 'application/json')
            if status != 200:
                sys.exit('seeding the event %r: status %d %s' % (e['what'], status, raw[:200]))
            n += 1
    print('seeded %d tagged series and %d events' % (len(tags), n))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('cases', nargs='?', default=os.path.join(os.path.dirname(os.path.abspath(__file__)), 'render-cases.jsonl'))
    ap.add_argument('--base-url', required=True)
    ap.add_argument('--seed', action='store_true', help='first register tags.json and post events.json (from --seed-dir)')
    ap.add_argument('--seed-dir', default=os.path.dirname(os.path.abspath(__file__)))
    ap.add_argument('--group', help='only the groups that begin with this (e.g. fn., render.time, find)')
    ap.add_argument('--function', help='only the cases of this function')
    ap.add_argument('--id', help='only this case; its want and got are printed in full')
    ap.add_argument('--skip-wall', action='store_true', help='skip the cases with "clock": "wall"')
    ap.add_argument('--strict', action='store_true', help='statuses must be equal, 500 included')
    ap.add_argument('--show', type=int, default=20, help='how many differences to print')
    ap.add_argument('--deviates', action='append', default=[], metavar='ID',
                    help='a case whose answer differs on purpose; that it still does is checked')
    ap.add_argument('--jobs', type=int, default=4)
    ap.add_argument('--failures', help='write "id<TAB>why" of each failure to this file')
    a = ap.parse_args()
    if a.seed:
        seed(a.base_url, a.seed_dir)
    cases = load(a.cases)
    if a.group:
        cases = [c for c in cases if c['group'].startswith(a.group)]
    if a.function:
        cases = [c for c in cases if c.get('function') == a.function]
    if a.id:
        cases = [c for c in cases if c['id'] == a.id]
        for c in cases:
            print(json.dumps(c, indent=1)[:20000])
            for p in c.get('steps', [c]):
                print('got:', ask(a.base_url, p, 'xx'))
    if a.skip_wall:
        cases = [c for c in cases if c.get('clock') != 'wall']
    stamp = '%x' % int(time.time() * 1000)
    first = [c for c in cases if 'steps' not in c]
    last = [c for c in cases if 'steps' in c]
    with ThreadPoolExecutor(max(1, a.jobs)) as pool:
        why = list(pool.map(lambda c: check(a.base_url, c, 'r' + stamp, a.strict), first))
    for i, c in enumerate(last):
        why.append(check(a.base_url, c, 'r%s%03d' % (stamp, i), a.strict))
    for i, c in enumerate(first + last):
        if c['id'] in a.deviates:
            why[i] = None if why[i] else 'listed as a deviation, but answered as recorded'
    tally = collections.OrderedDict()
    bad = []
    for c, w in zip(first + last, why):
        t = tally.setdefault(c['group'], [0, 0])
        t[w is not None] += 1
        if w is not None:
            bad.append((c, w))
    for c, w in bad[:a.show]:
        print('FAIL %s\n     %s\n     %s' % (c['id'], show(c)[:300], w))
    if len(bad) > a.show:
        print('... and %d more differences' % (len(bad) - a.show))
    print('%-36s %7s %7s' % ('group', 'passed', 'failed'))
    for g in sorted(tally):
        print('%-36s %7d %7d' % (g, tally[g][0], tally[g][1]))
    if a.failures:
        with open(a.failures, 'w', encoding='utf8') as fh:
            for c, w in bad:
                fh.write('%s\t%s\n' % (c['id'], w))
    print('%d passed, %d failed' % (len(why) - len(bad), len(bad)))
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
