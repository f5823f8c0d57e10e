INSERT INTO numbers VALUES ('epoch', 5);
INSERT INTO numbers VALUES ('order', 1);
INSERT INTO servers VALUES ('gpu1', 'gpu1:7443', '[["rack","7"]]', FALSE, FALSE);
INSERT INTO accelerators VALUES ('gpu1/0', 'gpu1', 0, 'gpu', 'soft', 1073741824, '[["cc","8.6"]]', FALSE, '', TRUE, 0);
INSERT INTO leases VALUES ('lease-1', 'research', 'spiffe://lab/tenant/research/user/alice', '{"compute":1000,"count":1,"kind":"gpu","labels":[["rack","7"]],"memory":0,"models":["soft"]}', 1, 'training', 'laptop', '["alice"]', 0, 0.0, 0.0, 'InUse', '', '[{"compute":1000,"device":"gpu1/0","memory":1073741824}]', 5, 'drain', 'gone');
INSERT INTO tenants VALUES ('research', '{"compute":null,"devices":4,"leases":null,"longest":3600.5,"memory":null}');
INSERT INTO profiles VALUES ('half', '{"compute":500,"count":1,"kind":"gpu","labels":[],"memory":536870912,"models":[]}');
INSERT INTO requests VALUES ('spiffe://lab/tenant/research/user/alice attach 1', 'spiffe://lab/tenant/research/user/alice', 'attach 1', 'lease-1', 1);
UPDATE pool SET term = 41, holder = 'scheduler1', since = '2026-11-26T04:00:00.000000Z';
