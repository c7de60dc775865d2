BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'old');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'fingerprint','{"code schema version": 1, "optuna": "5", "dataset": "dcab801efb819812f3a984c9dd65a79e", "metric": "wauc", "seed": 0, "space: fix epochs": 3, "space: fix batch": 512, "space: fix embedding": 4, "space: fix blocks": 1, "space: fix warmup": 0.1, "space: fix architecture_rate": 0.1, "space: vary architecture": {"choices": ["parallel", "inherit", "learn"]}, "space: vary width": {"choices": [8, 16]}, "space: vary readout": {"choices": ["hard", "soft", "drop"]}, "space: vary alternating": {"choices": [false, true]}, "space: vary retrain": {"choices": ["scratch", "supernet"]}, "space: vary rank": {"choices": [0, 2, 4]}, "space: vary learning_rate": {"low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "study_user_attributes" VALUES(2,1,'spent','1.564361959000962');
INSERT INTO "study_user_attributes" VALUES(3,1,'settings','{"source": {"name": "taobao-sim", "rows": 2500}, "space": "SPACE", "metric": "wauc", "seed": 0, "device": "cpu", "trials": 4, "time_limit": null, "cohort": null, "precision": null, "checkpoint_every": null}');
INSERT INTO "study_user_attributes" VALUES(4,1,'cohort','1');
INSERT INTO "study_user_attributes" VALUES(5,1,'ceiling','{"wauc": 0.7799734130108911, "interval": [0.738414573996159, 0.8215322520256232], "themes": {"105": {"auc": 0.8264065592309868, "interval": [0.7491458527008935, 0.9036672657610801], "rows": 158}, "121": {"auc": 0.7817083692838654, "interval": [0.6838715816732309, 0.8795451568945], "rows": 80}, "139": {"auc": 0.7708333333333334, "interval": [0.6203397395850968, 0.9213269270815699], "rows": 16}, "141": {"auc": 0.7143701078127307, "interval": [0.6243345223245049, 0.8044056933009565], "rows": 220}, "143": {"auc": 0.8361344537815125, "interval": [0.6989617008458845, 0.9733072067171405], "rows": 82}, "158": {"auc": 0.8051948051948052, "interval": [0.6512933760679034, 0.9590962343217071], "rows": 29}, "176": {"auc": 0.8625, "interval": [0.7214280724240291, 1.0], "rows": 21}, "177": {"auc": 0.8333333333333334, "interval": [0.5708117292840806, 1.0], "rows": 16}, "181": {"auc": 0.75, "interval": [0.5119027976271502, 0.9880972023728498], "rows": 16}, "197": {"auc": 0.771875, "interval": [0.6112647576088701, 0.9324852423911298], "rows": 42}}}');
INSERT INTO "study_user_attributes" VALUES(6,1,'proof','{"number": 0, "best": {"click": {"auc": 0.5247431137807812, "wauc": 0.524603784929963, "logloss": 0.5102888626386575, "mean_auc": 0.5116023093564178, "worst_auc": 0.25, "gauc": 0.5423022598870058, "calibration": 1.3459297788147295, "ece": 0.08170729628529211, "skipped_domains": 0, "skipped_users": 65, "domains": {"105": {"rows": 158, "positives": 27, "auc": 0.5728018094430308, "logloss": 0.46951018926651544, "calibration": 1.4353538998839634}, "121": {"rows": 80, "positives": 19, "auc": 0.5530629853321829, "logloss": 0.5640543303590684, "calibration": 1.2805406282302563}, "139": {"rows": 16, "positives": 4, "auc": 0.25, "logloss": 0.6365945348899603, "calibration": 1.0872099422898986}, "141": {"rows": 220, "positives": 37, "auc": 0.546448087431694, "logloss": 0.4783337334519732, "calibration": 1.492115138578693}, "143": {"rows": 82, "positives": 14, "auc": 0.40756302521008403, "logloss": 0.5051456479752043, "calibration": 1.504108421008659}, "158": {"rows": 29, "positives": 7, "auc": 0.5194805194805194, "logloss": 0.552713724050398, "calibration": 1.029097726952338}, "176": {"rows": 21, "positives": 5, "auc": 0.5875, "logloss": 0.5457779597325517, "calibration": 0.9894453671907553}, "177": {"rows": 16, "positives": 4, "auc": 0.6875, "logloss": 0.5482384411783339, "calibration": 1.2200208058851496}, "181": {"rows": 16, "positives": 4, "auc": 0.6041666666666666, "logloss": 0.5599531727683453, "calibration": 1.155134891004123}, "197": {"rows": 42, "positives": 10, "auc": 0.3875, "logloss": 0.6101783865433312, "calibration": 1.0965822288618021}}}}, "plain": {"click": {"auc": 0.5247431137807812, "wauc": 0.524603784929963, "logloss": 0.5102888626386575, "mean_auc": 0.5116023093564178, "worst_auc": 0.25, "gauc": 0.5423022598870058, "calibration": 1.3459297788147295, "ece": 0.08170729628529211, "skipped_domains": 0, "skipped_users": 65, "domains": {"105": {"rows": 158, "positives": 27, "auc": 0.5728018094430308, "logloss": 0.46951018926651544, "calibration": 1.4353538998839634}, "121": {"rows": 80, "positives": 19, "auc": 0.5530629853321829, "logloss": 0.5640543303590684, "calibration": 1.2805406282302563}, "139": {"rows": 16, "positives": 4, "auc": 0.25, "logloss": 0.6365945348899603, "calibration": 1.0872099422898986}, "141": {"rows": 220, "positives": 37, "auc": 0.546448087431694, "logloss": 0.4783337334519732, "calibration": 1.492115138578693}, "143": {"rows": 82, "positives": 14, "auc": 0.40756302521008403, "logloss": 0.5051456479752043, "calibration": 1.504108421008659}, "158": {"rows": 29, "positives": 7, "auc": 0.5194805194805194, "logloss": 0.552713724050398, "calibration": 1.029097726952338}, "176": {"rows": 21, "positives": 5, "auc": 0.5875, "logloss": 0.5457779597325517, "calibration": 0.9894453671907553}, "177": {"rows": 16, "positives": 4, "auc": 0.6875, "logloss": 0.5482384411783339, "calibration": 1.2200208058851496}, "181": {"rows": 16, "positives": 4, "auc": 0.6041666666666666, "logloss": 0.5599531727683453, "calibration": 1.155134891004123}, "197": {"rows": 42, "positives": 10, "auc": 0.3875, "logloss": 0.6101783865433312, "calibration": 1.0965822288618021}}}}}');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,1488,5.55529432974517844989e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,1,2976,5.79796797647310180323e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(3,1,4464,5.79796797647310180323e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(4,2,1488,5.6445875777386889105e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(5,2,2976,5.70524154675447148221e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(6,2,4464,5.70547062901339829821e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(7,3,2976,5.43256456763622441741e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(8,3,4464,5.57153240151186168738e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(9,3,5952,5.64200694333722552187e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(10,4,2976,5.43256456763622441741e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(11,4,4464,5.57153240151186168738e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(12,4,5952,5.64200694333722552187e-01,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'architecture',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["parallel", "inherit", "learn"]}}');
INSERT INTO "trial_params" VALUES(2,1,'readout',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["hard", "soft", "drop"]}}');
INSERT INTO "trial_params" VALUES(3,1,'alternating',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [false, true]}}');
INSERT INTO "trial_params" VALUES(4,1,'retrain',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["scratch", "supernet"]}}');
INSERT INTO "trial_params" VALUES(5,1,'rank',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4]}}');
INSERT INTO "trial_params" VALUES(6,1,'learning_rate',0.003,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(7,2,'architecture',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["parallel", "inherit", "learn"]}}');
INSERT INTO "trial_params" VALUES(8,2,'width',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [8, 16]}}');
INSERT INTO "trial_params" VALUES(9,2,'readout',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["hard", "soft", "drop"]}}');
INSERT INTO "trial_params" VALUES(10,2,'alternating',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [false, true]}}');
INSERT INTO "trial_params" VALUES(11,2,'retrain',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["scratch", "supernet"]}}');
INSERT INTO "trial_params" VALUES(12,2,'rank',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4]}}');
INSERT INTO "trial_params" VALUES(13,2,'learning_rate',0.003,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(14,3,'architecture',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["parallel", "inherit", "learn"]}}');
INSERT INTO "trial_params" VALUES(15,3,'width',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [8, 16]}}');
INSERT INTO "trial_params" VALUES(16,3,'readout',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["hard", "soft", "drop"]}}');
INSERT INTO "trial_params" VALUES(17,3,'alternating',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [false, true]}}');
INSERT INTO "trial_params" VALUES(18,3,'retrain',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["scratch", "supernet"]}}');
INSERT INTO "trial_params" VALUES(19,3,'rank',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4]}}');
INSERT INTO "trial_params" VALUES(20,3,'learning_rate',0.003,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(21,4,'architecture',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["parallel", "inherit", "learn"]}}');
INSERT INTO "trial_params" VALUES(22,4,'width',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [8, 16]}}');
INSERT INTO "trial_params" VALUES(23,4,'readout',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["hard", "soft", "drop"]}}');
INSERT INTO "trial_params" VALUES(24,4,'alternating',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [false, true]}}');
INSERT INTO "trial_params" VALUES(25,4,'retrain',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["scratch", "supernet"]}}');
INSERT INTO "trial_params" VALUES(26,4,'rank',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 2, 4]}}');
INSERT INTO "trial_params" VALUES(27,4,'learning_rate',0.003,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"architecture": "parallel", "readout": "drop", "alternating": false, "retrain": "scratch", "rank": 0, "learning_rate": 0.003}');
INSERT INTO "trial_system_attributes" VALUES(2,2,'fixed_params','{"architecture": "parallel", "width": 8, "readout": "drop", "alternating": false, "retrain": "scratch", "rank": 4, "learning_rate": 0.003}');
INSERT INTO "trial_system_attributes" VALUES(3,3,'fixed_params','{"architecture": "learn", "width": 8, "readout": "hard", "alternating": false, "retrain": "scratch", "rank": 0, "learning_rate": 0.003}');
INSERT INTO "trial_system_attributes" VALUES(4,4,'fixed_params','{"architecture": "learn", "width": 8, "readout": "drop", "alternating": false, "retrain": "scratch", "rank": 0, "learning_rate": 0.003}');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'candidate','"{\"alternating\": false, \"architecture\": \"parallel\", \"architecture_rate\": 0.03, \"averaging\": 0.99, \"backbone\": \"fusion\", \"batch\": 512, \"blocks\": 2, \"cross\": \"matrix\", \"domain_ranks\": null, \"dropout\": 0.2, \"embedding\": 16, \"embedding_dropout\": 0.0, \"embedding_l2\": 1e-06, \"embedding_rate\": 4.0, \"epochs\": 3, \"experts\": 4, \"input_pruner\": false, \"keep_rate\": 1.0, \"learned\": \"both\", \"learning_rate\": 0.003, \"lora_schedule\": \"joint\", \"norm\": \"none\", \"order\": \"mixed\", \"pruner_input\": \"both\", \"rank\": 0, \"rank_divisor\": 0, \"rank_tilt\": 0.0, \"readout\": \"drop\", \"retrain\": \"scratch\", \"rewind\": 0.0, \"search_epochs\": 1.0, \"seed\": 735816961, \"sparsity\": 0.0, \"sparsity_alpha\": 5.0, \"sparsity_beta\": 2.0, \"sparsity_epsilon\": 0.25, \"sparsity_form\": \"fusion\", \"sparsity_tilt\": 0.0, \"task_space\": \"all\", \"ticket_epochs\": 1.0, \"ticket_ranking\": \"global\", \"ticket_rounds\": 4, \"ticket_unit\": \"domain\", \"truncate\": false, \"warm_share\": 0.5, \"warm_start\": 0.0, \"warmup\": 0.25, \"weight_decay\": 1e-06, \"width\": 128, \"wiring\": [{\"open\": [false, true], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [true, false], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [false, false, true, false], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [false, false, false, true], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [false, false, false, false, true, true], \"operators\": [0.0, 0.0, 1.0, 0.0]}]}"');
INSERT INTO "trial_user_attributes" VALUES(2,1,'group','[0]');
INSERT INTO "trial_user_attributes" VALUES(3,1,'found','"{\"alternating\": false, \"architecture\": \"parallel\", \"architecture_rate\": 0.03, \"averaging\": 0.99, \"backbone\": \"fusion\", \"batch\": 512, \"blocks\": 2, \"cross\": \"matrix\", \"domain_ranks\": null, \"dropout\": 0.2, \"embedding\": 16, \"embedding_dropout\": 0.0, \"embedding_l2\": 1e-06, \"embedding_rate\": 4.0, \"epochs\": 3, \"experts\": 4, \"input_pruner\": false, \"keep_rate\": 1.0, \"learned\": \"both\", \"learning_rate\": 0.003, \"lora_schedule\": \"joint\", \"norm\": \"none\", \"order\": \"mixed\", \"pruner_input\": \"both\", \"rank\": 0, \"rank_divisor\": 0, \"rank_tilt\": 0.0, \"readout\": \"drop\", \"retrain\": \"scratch\", \"rewind\": 0.0, \"search_epochs\": 1.0, \"seed\": 735816961, \"sparsity\": 0.0, \"sparsity_alpha\": 5.0, \"sparsity_beta\": 2.0, \"sparsity_epsilon\": 0.25, \"sparsity_form\": \"fusion\", \"sparsity_tilt\": 0.0, \"task_space\": \"all\", \"ticket_epochs\": 1.0, \"ticket_ranking\": \"global\", \"ticket_rounds\": 4, \"ticket_unit\": \"domain\", \"truncate\": false, \"warm_share\": 0.5, \"warm_start\": 0.0, \"warmup\": 0.25, \"weight_decay\": 1e-06, \"width\": 128, \"wiring\": [{\"open\": [false, true], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [true, false], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [false, false, true, false], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [false, false, false, true], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [false, false, false, false, true, true], \"operators\": [0.0, 0.0, 1.0, 0.0]}]}"');
INSERT INTO "trial_user_attributes" VALUES(4,1,'valid','{"auc": 0.5808513531891745, "wauc": 0.5797967976473102, "logloss": 0.5498437050981916, "mean_auc": 0.5725279320884182, "worst_auc": 0.3961038961038961, "gauc": 0.6087111111111111, "calibration": 1.0816968098200497, "ece": 0.04745085450008376, "skipped_domains": 0, "skipped_users": 63, "domains": {"105": {"rows": 113, "positives": 26, "auc": 0.5106100795755968, "logloss": 0.5445727127380742, "calibration": 1.0839398766378097}, "121": {"rows": 79, "positives": 18, "auc": 0.6575591985428051, "logloss": 0.5279107746072036, "calibration": 1.3004180276456536}, "139": {"rows": 16, "positives": 4, "auc": 0.4166666666666667, "logloss": 0.6122831489503505, "calibration": 1.0422198788613746}, "141": {"rows": 159, "positives": 37, "auc": 0.6510855117412494, "logloss": 0.5194072072716718, "calibration": 1.1282225501124574}, "143": {"rows": 59, "positives": 14, "auc": 0.5015873015873016, "logloss": 0.5503312936104184, "calibration": 1.0473981930571181}, "158": {"rows": 29, "positives": 7, "auc": 0.3961038961038961, "logloss": 0.590495227525608, "calibration": 1.0678311381326808}, "176": {"rows": 21, "positives": 5, "auc": 0.425, "logloss": 0.5851183515077627, "calibration": 1.0627806728856144}, "177": {"rows": 16, "positives": 4, "auc": 0.6041666666666666, "logloss": 0.5652805173539563, "calibration": 1.1866029176328743}, "181": {"rows": 10, "positives": 4, "auc": 0.875, "logloss": 0.6444488969601355, "calibration": 0.7721182493899006}, "197": {"rows": 26, "positives": 10, "auc": 0.6875, "logloss": 0.6662754488033567, "calibration": 0.6748632604727616}}}');
INSERT INTO "trial_user_attributes" VALUES(5,1,'gap','null');
INSERT INTO "trial_user_attributes" VALUES(6,1,'closed','null');
INSERT INTO "trial_user_attributes" VALUES(7,1,'multiply_adds','null');
INSERT INTO "trial_user_attributes" VALUES(8,1,'kept','null');
INSERT INTO "trial_user_attributes" VALUES(9,1,'overlap','null');
INSERT INTO "trial_user_attributes" VALUES(10,1,'reason','"epochs"');
INSERT INTO "trial_user_attributes" VALUES(11,1,'seconds','0.1803852739976719');
INSERT INTO "trial_user_attributes" VALUES(12,1,'speed','32366.232062262043');
INSERT INTO "trial_user_attributes" VALUES(13,2,'candidate','"{\"alternating\": false, \"architecture\": \"parallel\", \"architecture_rate\": 0.1, \"averaging\": 0.99, \"backbone\": \"fusion\", \"batch\": 512, \"blocks\": 1, \"cross\": \"matrix\", \"domain_ranks\": null, \"dropout\": 0.2, \"embedding\": 4, \"embedding_dropout\": 0.0, \"embedding_l2\": 1e-06, \"embedding_rate\": 4.0, \"epochs\": 3, \"experts\": 4, \"input_pruner\": false, \"keep_rate\": 1.0, \"learned\": \"both\", \"learning_rate\": 0.003, \"lora_schedule\": \"joint\", \"norm\": \"none\", \"order\": \"mixed\", \"pruner_input\": \"both\", \"rank\": 4, \"rank_divisor\": 0, \"rank_tilt\": 0.0, \"readout\": \"drop\", \"retrain\": \"scratch\", \"rewind\": 0.0, \"search_epochs\": 1.0, \"seed\": 735816961, \"sparsity\": 0.0, \"sparsity_alpha\": 5.0, \"sparsity_beta\": 2.0, \"sparsity_epsilon\": 0.25, \"sparsity_form\": \"fusion\", \"sparsity_tilt\": 0.0, \"task_space\": \"all\", \"ticket_epochs\": 1.0, \"ticket_ranking\": \"global\", \"ticket_rounds\": 4, \"ticket_unit\": \"domain\", \"truncate\": false, \"warm_share\": 0.5, \"warm_start\": 0.0, \"warmup\": 0.1, \"weight_decay\": 1e-06, \"width\": 8, \"wiring\": [{\"open\": [false, true], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [true, false], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [false, false, true, true], \"operators\": [0.0, 0.0, 1.0, 0.0]}]}"');
INSERT INTO "trial_user_attributes" VALUES(14,2,'group','[1]');
INSERT INTO "trial_user_attributes" VALUES(15,2,'found','"{\"alternating\": false, \"architecture\": \"parallel\", \"architecture_rate\": 0.1, \"averaging\": 0.99, \"backbone\": \"fusion\", \"batch\": 512, \"blocks\": 1, \"cross\": \"matrix\", \"domain_ranks\": null, \"dropout\": 0.2, \"embedding\": 4, \"embedding_dropout\": 0.0, \"embedding_l2\": 1e-06, \"embedding_rate\": 4.0, \"epochs\": 3, \"experts\": 4, \"input_pruner\": false, \"keep_rate\": 1.0, \"learned\": \"both\", \"learning_rate\": 0.003, \"lora_schedule\": \"joint\", \"norm\": \"none\", \"order\": \"mixed\", \"pruner_input\": \"both\", \"rank\": 4, \"rank_divisor\": 0, \"rank_tilt\": 0.0, \"readout\": \"drop\", \"retrain\": \"scratch\", \"rewind\": 0.0, \"search_epochs\": 1.0, \"seed\": 735816961, \"sparsity\": 0.0, \"sparsity_alpha\": 5.0, \"sparsity_beta\": 2.0, \"sparsity_epsilon\": 0.25, \"sparsity_form\": \"fusion\", \"sparsity_tilt\": 0.0, \"task_space\": \"all\", \"ticket_epochs\": 1.0, \"ticket_ranking\": \"global\", \"ticket_rounds\": 4, \"ticket_unit\": \"domain\", \"truncate\": false, \"warm_share\": 0.5, \"warm_start\": 0.0, \"warmup\": 0.1, \"weight_decay\": 1e-06, \"width\": 8, \"wiring\": [{\"open\": [false, true], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [true, false], \"operators\": [1.0, 0.0, 0.0, 0.0]}, {\"open\": [false, false, true, true], \"operators\": [0.0, 0.0, 1.0, 0.0]}]}"');
INSERT INTO "trial_user_attributes" VALUES(16,2,'valid','{"auc": 0.5677566008043364, "wauc": 0.5705470629013398, "logloss": 0.6679482633096888, "mean_auc": 0.533902855014712, "worst_auc": 0.3375, "gauc": 0.5851111111111111, "calibration": 1.9623077006190264, "ece": 0.23510926776487576, "skipped_domains": 0, "skipped_users": 63, "domains": {"105": {"rows": 113, "positives": 26, "auc": 0.6043324491600354, "logloss": 0.663676626877812, "calibration": 2.0861026308234396}, "121": {"rows": 79, "positives": 18, "auc": 0.5519125683060109, "logloss": 0.6776009641833594, "calibration": 2.150393210908555}, "139": {"rows": 16, "positives": 4, "auc": 0.3958333333333333, "logloss": 0.6857531159490532, "calibration": 1.918598064819222}, "141": {"rows": 159, "positives": 37, "auc": 0.6360212671688081, "logloss": 0.6581028353029283, "calibration": 2.0445807476823448}, "143": {"rows": 59, "positives": 14, "auc": 0.546031746031746, "logloss": 0.6607207556647648, "calibration": 1.9831885356749446}, "158": {"rows": 29, "positives": 7, "auc": 0.5194805194805194, "logloss": 0.6828413360794782, "calibration": 2.018449431413419}, "176": {"rows": 21, "positives": 5, "auc": 0.3375, "logloss": 0.6911712902231739, "calibration": 1.9826766144722516}, "177": {"rows": 16, "positives": 4, "auc": 0.4583333333333333, "logloss": 0.6695668238987604, "calibration": 1.8696280359032669}, "181": {"rows": 10, "positives": 4, "auc": 0.8333333333333334, "logloss": 0.6651568575312671, "calibration": 1.2172204767744301}, "197": {"rows": 26, "positives": 10, "auc": 0.45625, "logloss": 0.6875457372531408, "calibration": 1.271350461615211}}}');
INSERT INTO "trial_user_attributes" VALUES(17,2,'gap','null');
INSERT INTO "trial_user_attributes" VALUES(18,2,'closed','null');
INSERT INTO "trial_user_attributes" VALUES(19,2,'multiply_adds','null');
INSERT INTO "trial_user_attributes" VALUES(20,2,'kept','null');
INSERT INTO "trial_user_attributes" VALUES(21,2,'overlap','null');
INSERT INTO "trial_user_attributes" VALUES(22,2,'reason','"epochs"');
INSERT INTO "trial_user_attributes" VALUES(23,2,'seconds','0.07038057599856984');
INSERT INTO "trial_user_attributes" VALUES(24,2,'speed','86044.91334343277');
INSERT INTO "trial_user_attributes" VALUES(25,3,'candidate','"{\"alternating\": false, \"architecture\": \"learn\", \"architecture_rate\": 0.1, \"averaging\": 0.99, \"backbone\": \"fusion\", \"batch\": 512, \"blocks\": 1, \"cross\": \"matrix\", \"domain_ranks\": null, \"dropout\": 0.2, \"embedding\": 4, \"embedding_dropout\": 0.0, \"embedding_l2\": 1e-06, \"embedding_rate\": 4.0, \"epochs\": 3, \"experts\": 4, \"input_pruner\": false, \"keep_rate\": 1.0, \"learned\": \"both\", \"learning_rate\": 0.003, \"lora_schedule\": \"joint\", \"norm\": \"none\", \"order\": \"mixed\", \"pruner_input\": \"both\", \"rank\": 0, \"rank_divisor\": 0, \"rank_tilt\": 0.0, \"readout\": \"hard\", \"retrain\": \"scratch\", \"rewind\": 0.0, \"search_epochs\": 1.0, \"seed\": 735816961, \"sparsity\": 0.0, \"sparsity_alpha\": 5.0, \"sparsity_beta\": 2.0, \"sparsity_epsilon\": 0.25, \"sparsity_form\": \"fusion\", \"sparsity_tilt\": 0.0, \"task_space\": \"all\", \"ticket_epochs\": 1.0, \"ticket_ranking\": \"global\", \"ticket_rounds\": 4, \"ticket_unit\": \"domain\", \"truncate\": false, \"warm_share\": 0.5, \"warm_start\": 0.0, \"warmup\": 0.1, \"weight_decay\": 1e-06, \"width\": 8, \"wiring\": null}"');
INSERT INTO "trial_user_attributes" VALUES(26,3,'group','[2]');
INSERT INTO "trial_user_attributes" VALUES(27,3,'found','"{\"alternating\": false, \"architecture\": \"learn\", \"architecture_rate\": 0.1, \"averaging\": 0.99, \"backbone\": \"fusion\", \"batch\": 512, \"blocks\": 1, \"cross\": \"matrix\", \"domain_ranks\": null, \"dropout\": 0.2, \"embedding\": 4, \"embedding_dropout\": 0.0, \"embedding_l2\": 1e-06, \"embedding_rate\": 4.0, \"epochs\": 3, \"experts\": 4, \"input_pruner\": false, \"keep_rate\": 1.0, \"learned\": \"both\", \"learning_rate\": 0.003, \"lora_schedule\": \"joint\", \"norm\": \"none\", \"order\": \"mixed\", \"pruner_input\": \"both\", \"rank\": 0, \"rank_divisor\": 0, \"rank_tilt\": 0.0, \"readout\": \"hard\", \"retrain\": \"scratch\", \"rewind\": 0.0, \"search_epochs\": 1.0, \"seed\": 735816961, \"sparsity\": 0.0, \"sparsity_alpha\": 5.0, \"sparsity_beta\": 2.0, \"sparsity_epsilon\": 0.25, \"sparsity_form\": \"fusion\", \"sparsity_tilt\": 0.0, \"task_space\": \"all\", \"ticket_epochs\": 1.0, \"ticket_ranking\": \"global\", \"ticket_rounds\": 4, \"ticket_unit\": \"domain\", \"truncate\": false, \"warm_share\": 0.5, \"warm_start\": 0.0, \"warmup\": 0.1, \"weight_decay\": 1e-06, \"width\": 8, \"wiring\": [{\"open\": [true, false], \"operators\": [0.0, 0.0, 0.0, 1.0]}, {\"open\": [true, true], \"operators\": [0.0, 1.0, 0.0, 0.0]}, {\"open\": [true, true, true, true], \"operators\": [0.0, 0.0, 0.0, 1.0]}]}"');
INSERT INTO "trial_user_attributes" VALUES(28,3,'valid','{"auc": 0.5595966660838142, "wauc": 0.5642006943337226, "logloss": 0.6244152475876127, "mean_auc": 0.5183982848705149, "worst_auc": 0.25, "gauc": 0.5737777777777778, "calibration": 1.6520766618166267, "ece": 0.16250436646410457, "skipped_domains": 0, "skipped_users": 63, "domains": {"105": {"rows": 113, "positives": 26, "auc": 0.5322723253757736, "logloss": 0.6135271965233917, "calibration": 1.7251257258001123}, "121": {"rows": 79, "positives": 18, "auc": 0.5701275045537341, "logloss": 0.6440689661963994, "calibration": 1.8815502237289254}, "139": {"rows": 16, "positives": 4, "auc": 0.4375, "logloss": 0.7334796009449487, "calibration": 1.5372167174004676}, "141": {"rows": 159, "positives": 37, "auc": 0.6513070447496677, "logloss": 0.5905882813454365, "calibration": 1.7530019477828842}, "143": {"rows": 59, "positives": 14, "auc": 0.5761904761904761, "logloss": 0.5953538213770256, "calibration": 1.6128995239593709}, "158": {"rows": 29, "positives": 7, "auc": 0.33116883116883117, "logloss": 0.7235823037655862, "calibration": 1.5451010667129648}, "176": {"rows": 21, "positives": 5, "auc": 0.5, "logloss": 0.6449558113914963, "calibration": 1.6538393068252784}, "177": {"rows": 16, "positives": 4, "auc": 0.25, "logloss": 0.6976876323887747, "calibration": 1.5457360189795901}, "181": {"rows": 10, "positives": 4, "auc": 0.6666666666666666, "logloss": 0.6631015419700687, "calibration": 1.186230210995101}, "197": {"rows": 26, "positives": 10, "auc": 0.66875, "logloss": 0.6305448843449297, "calibration": 1.0793415282405603}}}');
INSERT INTO "trial_user_attributes" VALUES(29,3,'gap','{"relaxed": 0.5036557213161709, "discrete": 0.5060643698491224}');
INSERT INTO "trial_user_attributes" VALUES(30,3,'closed','null');
INSERT INTO "trial_user_attributes" VALUES(31,3,'multiply_adds','null');
INSERT INTO "trial_user_attributes" VALUES(32,3,'kept','null');
INSERT INTO "trial_user_attributes" VALUES(33,3,'overlap','null');
INSERT INTO "trial_user_attributes" VALUES(34,3,'reason','"epochs"');
INSERT INTO "trial_user_attributes" VALUES(35,3,'seconds','0.17965587000071537');
INSERT INTO "trial_user_attributes" VALUES(36,3,'speed','91846.87265103169');
INSERT INTO "trial_user_attributes" VALUES(37,4,'candidate','"{\"alternating\": false, \"architecture\": \"learn\", \"architecture_rate\": 0.1, \"averaging\": 0.99, \"backbone\": \"fusion\", \"batch\": 512, \"blocks\": 1, \"cross\": \"matrix\", \"domain_ranks\": null, \"dropout\": 0.2, \"embedding\": 4, \"embedding_dropout\": 0.0, \"embedding_l2\": 1e-06, \"embedding_rate\": 4.0, \"epochs\": 3, \"experts\": 4, \"input_pruner\": false, \"keep_rate\": 1.0, \"learned\": \"both\", \"learning_rate\": 0.003, \"lora_schedule\": \"joint\", \"norm\": \"none\", \"order\": \"mixed\", \"pruner_input\": \"both\", \"rank\": 0, \"rank_divisor\": 0, \"rank_tilt\": 0.0, \"readout\": \"drop\", \"retrain\": \"scratch\", \"rewind\": 0.0, \"search_epochs\": 1.0, \"seed\": 735816961, \"sparsity\": 0.0, \"sparsity_alpha\": 5.0, \"sparsity_beta\": 2.0, \"sparsity_epsilon\": 0.25, \"sparsity_form\": \"fusion\", \"sparsity_tilt\": 0.0, \"task_space\": \"all\", \"ticket_epochs\": 1.0, \"ticket_ranking\": \"global\", \"ticket_rounds\": 4, \"ticket_unit\": \"domain\", \"truncate\": false, \"warm_share\": 0.5, \"warm_start\": 0.0, \"warmup\": 0.1, \"weight_decay\": 1e-06, \"width\": 8, \"wiring\": null}"');
INSERT INTO "trial_user_attributes" VALUES(38,4,'group','[3]');
INSERT INTO "trial_user_attributes" VALUES(39,4,'found','"{\"alternating\": false, \"architecture\": \"learn\", \"architecture_rate\": 0.1, \"averaging\": 0.99, \"backbone\": \"fusion\", \"batch\": 512, \"blocks\": 1, \"cross\": \"matrix\", \"domain_ranks\": null, \"dropout\": 0.2, \"embedding\": 4, \"embedding_dropout\": 0.0, \"embedding_l2\": 1e-06, \"embedding_rate\": 4.0, \"epochs\": 3, \"experts\": 4, \"input_pruner\": false, \"keep_rate\": 1.0, \"learned\": \"both\", \"learning_rate\": 0.003, \"lora_schedule\": \"joint\", \"norm\": \"none\", \"order\": \"mixed\", \"pruner_input\": \"both\", \"rank\": 0, \"rank_divisor\": 0, \"rank_tilt\": 0.0, \"readout\": \"drop\", \"retrain\": \"scratch\", \"rewind\": 0.0, \"search_epochs\": 1.0, \"seed\": 735816961, \"sparsity\": 0.0, \"sparsity_alpha\": 5.0, \"sparsity_beta\": 2.0, \"sparsity_epsilon\": 0.25, \"sparsity_form\": \"fusion\", \"sparsity_tilt\": 0.0, \"task_space\": \"all\", \"ticket_epochs\": 1.0, \"ticket_ranking\": \"global\", \"ticket_rounds\": 4, \"ticket_unit\": \"domain\", \"truncate\": false, \"warm_share\": 0.5, \"warm_start\": 0.0, \"warmup\": 0.1, \"weight_decay\": 1e-06, \"width\": 8, \"wiring\": [{\"open\": [true, false], \"operators\": [0.0, 0.0, 0.0, 1.0]}, {\"open\": [true, true], \"operators\": [0.0, 1.0, 0.0, 0.0]}, {\"open\": [true, true, true, true], \"operators\": [0.0, 0.0, 0.0, 1.0]}]}"');
INSERT INTO "trial_user_attributes" VALUES(40,4,'valid','{"auc": 0.5595966660838142, "wauc": 0.5642006943337226, "logloss": 0.6244152475876127, "mean_auc": 0.5183982848705149, "worst_auc": 0.25, "gauc": 0.5737777777777778, "calibration": 1.6520766618166267, "ece": 0.16250436646410457, "skipped_domains": 0, "skipped_users": 63, "domains": {"105": {"rows": 113, "positives": 26, "auc": 0.5322723253757736, "logloss": 0.6135271965233917, "calibration": 1.7251257258001123}, "121": {"rows": 79, "positives": 18, "auc": 0.5701275045537341, "logloss": 0.6440689661963994, "calibration": 1.8815502237289254}, "139": {"rows": 16, "positives": 4, "auc": 0.4375, "logloss": 0.7334796009449487, "calibration": 1.5372167174004676}, "141": {"rows": 159, "positives": 37, "auc": 0.6513070447496677, "logloss": 0.5905882813454365, "calibration": 1.7530019477828842}, "143": {"rows": 59, "positives": 14, "auc": 0.5761904761904761, "logloss": 0.5953538213770256, "calibration": 1.6128995239593709}, "158": {"rows": 29, "positives": 7, "auc": 0.33116883116883117, "logloss": 0.7235823037655862, "calibration": 1.5451010667129648}, "176": {"rows": 21, "positives": 5, "auc": 0.5, "logloss": 0.6449558113914963, "calibration": 1.6538393068252784}, "177": {"rows": 16, "positives": 4, "auc": 0.25, "logloss": 0.6976876323887747, "calibration": 1.5457360189795901}, "181": {"rows": 10, "positives": 4, "auc": 0.6666666666666666, "logloss": 0.6631015419700687, "calibration": 1.186230210995101}, "197": {"rows": 26, "positives": 10, "auc": 0.66875, "logloss": 0.6305448843449297, "calibration": 1.0793415282405603}}}');
INSERT INTO "trial_user_attributes" VALUES(41,4,'gap','{"relaxed": 0.5036557213161709, "discrete": 0.5060643698491224}');
INSERT INTO "trial_user_attributes" VALUES(42,4,'closed','null');
INSERT INTO "trial_user_attributes" VALUES(43,4,'multiply_adds','null');
INSERT INTO "trial_user_attributes" VALUES(44,4,'kept','null');
INSERT INTO "trial_user_attributes" VALUES(45,4,'overlap','null');
INSERT INTO "trial_user_attributes" VALUES(46,4,'reason','"epochs"');
INSERT INTO "trial_user_attributes" VALUES(47,4,'seconds','0.14766082699861727');
INSERT INTO "trial_user_attributes" VALUES(48,4,'speed','68175.37000406363');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,5.79796797647310180323e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,5.70547062901339829821e-01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,5.64200694333722552187e-01,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,5.64200694333722552187e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-27 23:54:20.031525','2026-11-27 23:54:20.393194');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-27 23:54:20.453513','2026-11-27 23:54:20.677430');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-27 23:54:20.727282','2026-11-27 23:54:21.072387');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-27 23:54:21.149568','2026-11-27 23:54:21.456848');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
